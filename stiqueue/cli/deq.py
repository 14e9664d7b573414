"""``stiqueue deq``, and how messages are printed."""

from __future__ import annotations

from collections.abc import Callable

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.meter import Meter
from stiqueue.cli.options import Callback, Target, as_json, duration, target
from stiqueue.cli.output import message_row, need, note, on_terminal, show_json, write
from stiqueue.limits import MAX_DELAY
from stiqueue.message import Message

Print = Callable[[Message], None]


def prints_messages(command: Callback) -> Callback:
    """Add the output options of a command; pass them to `printer`."""
    raw = click.option("--raw", is_flag=True, help="Print the bodies with nothing after them.")
    null = click.option("-0", "--null", is_flag=True, help="Print NUL instead of a newline after each body.")
    return null(raw(as_json(command)))


def printer(as_json: bool, null: bool, raw: bool) -> Print:
    """Return a function that prints a message and returns once the operating system has the output."""
    if as_json + null + raw > 1:
        raise click.UsageError("--json, --null and --raw: give only one of them")
    need("stdout")
    if as_json:
        return lambda message: show_json(message_row(message))
    end = b"" if raw else b"\0" if null else b"\n"
    return lambda message: write(message + end)


@click.command()
@click.option(
    "-n", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="How many messages to take."
)
@duration(
    "--timeout",
    text="How long to wait for each message; 0: take only what is ready; default: for ever.",
    most=MAX_DELAY,
)
@click.option("--no-ack", is_flag=True, help="Let the server forget each message as it sends it: at most once.")
@prints_messages
@target(waits="--connect-timeout")
@click.pass_context
def deq(
    context: click.Context,
    target: Target,
    count: int,
    timeout: float | None,
    no_ack: bool,
    as_json: bool,
    null: bool,
    raw: bool,
) -> None:
    r"""Take messages and print their bodies.

    Acks a message after writing its body to stdout and flushing it. If the command is stopped or stdout fails before
    that, the message returns to its old place in the queue. Exits with 3 if fewer than COUNT messages came in time.

    \b
    Examples:
      stiqueue deq
      stiqueue deq --timeout 0 --json | jq .body
      stiqueue deq --queue mail --raw > letter.txt
    """
    show = printer(as_json, null, raw)
    with target.client(ack_required=not no_ack) as client, Meter("dequeueing", count, hidden=on_terminal()) as meter:
        while meter.messages < count:
            message = client.deq(timeout)  # acks the previous one
            if message is None:
                break
            show(message)
            meter.add(1)
            if meter.messages == count and not no_ack and not message.ack():
                note(f"message {message.id} was acked too late: it is delivered again")
    if meter.messages < count:
        context.exit(ExitCode.NOTHING)
