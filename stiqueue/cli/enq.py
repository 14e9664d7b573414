"""``stiqueue enq``."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Iterable
from typing import Any, cast

import click

from stiqueue.cli.lines import Readable, read_batches, read_whole
from stiqueue.cli.meter import Meter
from stiqueue.cli.options import Target, as_json, duration, target
from stiqueue.cli.output import messages as words
from stiqueue.cli.output import need, note, show_result
from stiqueue.cli.signals import last_words
from stiqueue.client.enqueue import grouped
from stiqueue.client.options import BATCH_BYTES
from stiqueue.errors import StiQueueError
from stiqueue.limits import MAX_DELAY, MAX_PRIORITY, MAX_TTL
from stiqueue.sqclient import SQClient

MANY = 1_000
"""The number of messages from which the result includes the rate."""


def _header(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise click.BadParameter(f"{text!r} is not KEY=VALUE")
    return key, value


@click.command()
@click.argument("messages", nargs=-1, metavar="[MESSAGE]...")
@click.option("-0", "--null", is_flag=True, help="Messages on stdin end with NUL instead of a newline.")
@click.option("--whole", is_flag=True, help="All of stdin is one message.")
@click.option(
    "--priority",
    type=click.IntRange(0, MAX_PRIORITY),
    default=0,
    metavar="0..255",
    help="The highest is delivered first.",
)
@duration("--delay", text="How long to hide the messages from consumers.", default=0.0, most=MAX_DELAY)
@duration("--ttl", text="Drop messages not taken after this long; default: never.", most=MAX_TTL)
@click.option("--header", "headers", type=_header, multiple=True, metavar="KEY=VALUE", help="Add a header; repeatable.")
@click.option(
    "--request-id", metavar="ID", help="Enqueue one message once: within 5 minutes the same id enqueues nothing more."
)
@click.option("--key", metavar="KEY", help="Work on the messages of this key in order and one at a time.")
@click.option(
    "--unique-key", metavar="KEY", help="Enqueue one message unless one with this unique key is in the queue."
)
@click.option("--block", is_flag=True, help="If the queue is full, wait for room for up to --timeout.")
@target()
@as_json
def enq(
    target: Target,
    messages: tuple[str, ...],
    null: bool,
    whole: bool,
    headers: tuple[tuple[str, str], ...],
    request_id: str | None,
    unique_key: str | None,
    as_json: bool,
    **properties: Any,
) -> None:
    r"""Enqueue messages.

    Each MESSAGE is one message; without arguments, each line of stdin is. Returns once the server has confirmed them.
    Sends lines as they arrive: in batches if they arrive fast, at once if they arrive slowly.

    \b
    Examples:
      stiqueue enq "Hello, World!"
      stiqueue enq --queue mail --priority 9 --header to=ann@example.org < letter.txt --whole
      find . -name '*.jpg' -print0 | stiqueue enq -0 --queue thumbnails
      tail -F access.log | stiqueue enq --queue log
      stiqueue enq --queue invoices --key customer-17 "invoice 4711"
      stiqueue enq --queue reports --unique-key nightly "make the report"
    """
    if messages and (null or whole):
        raise click.UsageError("--null and --whole read stdin: leave out MESSAGE")
    if null and whole:
        raise click.UsageError("--null and --whole: give only one of them")
    if request_id is not None and not (whole or len(messages) == 1):
        raise click.UsageError("--request-id needs exactly one message: a single MESSAGE or --whole")
    if unique_key is not None and not (whole or len(messages) == 1):
        raise click.UsageError("--unique-key needs exactly one message: a single MESSAGE or --whole")
    properties["headers"] = dict(headers)
    with target.client() as client, _meter(reads=not messages) as meter:
        message_id = None
        if whole or len(messages) == 1:
            body = os.fsencode(messages[0]) if messages else read_whole(_stdin())
            message_id = client.enq(body, request_id=request_id, unique_key=unique_key, **properties)
            meter.messages = 1
        else:
            arguments = [os.fsencode(message) for message in messages]
            # One request per batch: a refused batch is split and sent again, so it must not be enqueued in part.
            separator = b"\0" if null else b"\n"
            batches = grouped(arguments, BATCH_BYTES) if arguments else read_batches(_stdin(), separator)
            _enqueue(client, batches, meter, properties)
    count = meter.messages
    value = {"queue": target.queue, "count": count} | ({} if message_id is None else {"id": message_id})
    sentence = f"enqueued {words(count)} in {target.queue}"
    if message_id is not None:
        sentence += f", id {message_id}"
    elif count >= MANY:
        sentence += f", {count / meter.seconds:,.0f} a second"
    show_result(value, sentence, as_json)


def _enqueue(client: SQClient, batches: Iterable[list[bytes]], meter: Meter, properties: dict[str, Any]) -> None:
    """Enqueue batch after batch; an error or a signal reports how many messages were enqueued before."""
    with last_words(lambda: f"stopped with {words(meter.messages)} enqueued"):
        for batch in batches:
            _enqueue_batch(client, batch, meter, properties)


def _enqueue_batch(client: SQClient, batch: list[bytes], meter: Meter, properties: dict[str, Any]) -> None:
    try:
        client.enq_many(batch, **properties)
    except StiQueueError as error:
        if error.reason == "MESSAGE_TOO_LARGE" and error.is_refusal and len(batch) > 1:
            # The batch, or one of its messages, is above this server's limit: use smaller batches.
            half = len(batch) // 2
            _enqueue_batch(client, batch[:half], meter, properties)
            _enqueue_batch(client, batch[half:], meter, properties)
            return
        told = f"{error}; {words(meter.messages)} enqueued before"
        if not error.is_refusal:
            told += f", and perhaps the {len(batch):,} after them"
        raise error.told_as(told, meter.messages > 0) from error
    meter.add(len(batch), sum(map(len, batch)) + len(batch))


def _stdin() -> Readable:
    need("stdin")
    if sys.stdin.isatty():
        note("reading messages from the terminal; Ctrl-D ends them")
    stream: Any = sys.stdin.buffer  # its type lacks read1
    return cast(Readable, stream)


def _meter(reads: bool) -> Meter:
    """Return a meter; if stdin is a file, it counts the bytes."""
    try:
        status = os.fstat(sys.stdin.fileno()) if reads else None
    except (OSError, ValueError):
        status = None
    return Meter(
        "enqueueing", status.st_size if status and stat.S_ISREG(status.st_mode) else None, hidden=sys.stdin.isatty()
    )
