"""``stiqueue move``."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import click

from stiqueue.cli import security
from stiqueue.cli.meter import Meter
from stiqueue.cli.options import WORKER_SECONDS, Target, as_json, duration, flat, target
from stiqueue.cli.output import messages as words
from stiqueue.cli.output import note, show_result
from stiqueue.cli.signals import last_words
from stiqueue.client.move import Move
from stiqueue.errors import StiQueueError
from stiqueue.limits import MAX_DELAY, queue_name
from stiqueue.wire.hosts import host_and_port

DEFAULT_PORT = 1234


def _address(context: click.Context, parameter: click.Parameter, text: str) -> tuple[str, int]:
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        host = None
    if not host or parts.path or parts.query or "@" in text:
        raise click.BadParameter(f"{text!r} is not HOST[:PORT]")
    return host, port


def _name(context: click.Context, parameter: click.Parameter, name: str | None) -> str | None:
    try:
        return None if name is None else queue_name(name)
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


def _to_options(command: Any) -> Any:
    for option in reversed(security.options("to-")):
        command = option(command)
    return command


@click.command()
@click.argument("to", metavar="HOST[:PORT]", callback=_address)
@click.option(
    "--to-queue", metavar="NAME", callback=_name, help="The queue on the other server; default: the same name."
)
@flat
@duration(
    "--timeout",
    text="Stop after this long without a ready message; for messages that are delayed or still coming in.",
    default=0.0,
    most=MAX_DELAY,
)
@target(waits="--connect-timeout", server_seconds=WORKER_SECONDS)
@_to_options
@as_json
def move(
    target: Target,
    to: tuple[str, int],
    to_queue: str | None,
    flat: bool,
    timeout: float,
    as_json: bool,
    **others: Any,
) -> None:
    r"""Move a queue to the server at HOST[:PORT].

    Both servers may keep running. Use it, for example, to move from a server with a data file to a cluster. Moves ready
    messages in the order of delivery, with bodies, headers, priorities, and the rest of each ttl. Leased and delayed
    messages stay until they are ready: run it again, or let it wait with --timeout.

    If it is killed, no message is lost: run it again. Within 5 minutes it duplicates none either. Messages under way
    are in the queue NAME.moving, where no consumer gets them. A message that the other server does not accept stays.

    \b
    Examples:
      stiqueue move --queue mail gateway:1234
      stiqueue move --queue mail --timeout 1h --flat gateway:1234
      stiqueue move --queue mail.moving --to-queue mail localhost   # give up an interrupted move
    """
    tls, token = security.read_tls(others, "to_"), security.read_token(others, "to_")
    host, port = to
    if (host, port, to_queue or target.queue) == (target.host, target.port, target.queue):
        raise click.UsageError("source and target are the same queue: name another server, or another --to-queue")
    there = Target(host, port, to_queue or target.queue, target.server_timeout, tls, token)
    with target.client() as source, there.client() as client, Meter("moving") as meter:
        work = Move(source, client, target.queue, there.queue, flat)
        work.on_moved = meter.add
        try:
            with last_words(lambda: f"stopped with {words(work.moved)} moved; run the same command to continue"):
                left = work.run(timeout)
        except StiQueueError as error:
            where = f", {work.staged:,} wait in {work.staging.queue} for the next run" if work.staged else ""
            raise type(error)(f"{error}; {words(work.moved)} moved before{where}", error.reason) from error
    if work.resumed:
        note(f"{words(work.resumed)} of them came from an earlier move that was stopped")
    if left.leased or left.delayed:
        note(f"{words(left.leased + left.delayed)} stayed: {left.leased:,} leased, {left.delayed:,} delayed")
    value = {"queue": target.queue, "moved": work.moved, "resumed": work.resumed, "expired": work.expired}
    value |= {"leased": left.leased, "delayed": left.delayed}
    sentence = f"moved {words(work.moved)} of {target.queue} to {there.queue} at {host_and_port(host, port)}"
    if work.expired:
        sentence += f", {work.expired:,} had expired"
    show_result(value, sentence, as_json)
