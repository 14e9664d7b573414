"""``stiqueue cancel`` and ``reschedule``: single messages by their ids."""

from __future__ import annotations

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.options import Target, as_json, seconds, target
from stiqueue.cli.output import messages, note, show_result
from stiqueue.errors import StiQueueError
from stiqueue.limits import MAX_DELAY, queue_name

_ID = click.IntRange(1, 2**64 - 1)


def _queue(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return queue_name(value)
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


@click.command()
@click.argument("name", metavar="QUEUE", callback=_queue)
@click.argument("ids", metavar="ID...", nargs=-1, required=True, type=_ID)
@target(queue=False)
@as_json
@click.pass_context
def cancel(context: click.Context, target: Target, name: str, ids: tuple[int, ...], as_json: bool) -> None:
    """Drop messages by their ids, ready or delayed.

    Messages that a consumer holds stay. Exits with 3 if none was dropped. `stiqueue peek --state all` shows ids.
    """
    with target.client() as client:
        dropped = client.cancel(*ids, queue=name)
    if dropped < len(set(ids)):
        note(f"{messages(len(set(ids)) - dropped)} of {name} not dropped: held by a consumer, or not there")
    show_result({"queue": name, "cancelled": dropped}, f"cancelled {messages(dropped)} of {name}", as_json)
    if not dropped:
        context.exit(ExitCode.NOTHING)


@click.command()
@click.argument("name", metavar="QUEUE", callback=_queue)
@click.argument("message_id", metavar="ID", type=_ID)
@click.argument("delay", metavar="DELAY", type=seconds)
@target(queue=False)
@as_json
@click.pass_context
def reschedule(context: click.Context, target: Target, name: str, message_id: int, delay: float, as_json: bool) -> None:
    r"""Let a message, ready or delayed, be ready after DELAY from now.

    It keeps its id. Exits with 3 if it is not in the queue.

    \b
    Examples:
      stiqueue reschedule mail 7 30m
      stiqueue reschedule mail 7 0
    """
    if delay > MAX_DELAY:
        raise click.BadParameter(f"DELAY: {delay:g} seconds are more than {MAX_DELAY:g}")
    with target.client() as client:
        found = client.reschedule(message_id, delay, queue=name)
    if not found:
        note(f"message {message_id} is not in {name}")
        context.exit(ExitCode.NOTHING)
    value = {"queue": name, "id": message_id, "delay": delay}
    show_result(value, f"message {message_id} of {name} is ready in {delay:g} s", as_json)
