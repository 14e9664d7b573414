"""``stiqueue cnt``, ``peek`` and ``queues``: look at queues without taking messages."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.options import Target, as_json, target
from stiqueue.cli.output import counts_row, message_row, note, on_terminal, show_result
from stiqueue.cli.tables import Column, age, number, show_rows, size
from stiqueue.message import DEAD_SUFFIX, State

STATE_STYLES = {"ready": "green", "leased": "yellow", "delayed": "cyan"}


def _dead_style(queue: str) -> str:
    return "red" if queue.endswith(DEAD_SUFFIX) else "bold"


QUEUE = Column("queue", right=False, flexible=True, style=_dead_style)
READY = Column("ready", shown=number, style=lambda count: "green" if count else "dim")
LEASED = Column("leased", shown=number, style=lambda count: "yellow" if count else "dim")
DELAYED = Column("delayed", shown=number, style=lambda count: "cyan" if count else "dim")
PAUSED = Column(
    "paused", shown=lambda paused: "yes" if paused else "-", rare=True, style=lambda paused: "red" if paused else ""
)
CONSUMERS = Column("consumers", shown=number, extra=True)
BYTES = Column("bytes", "size", size, extra=True)
OLDEST_READY = Column("oldest_ready_age_ms", "oldest", age, extra=True)
OLDEST_LEASE = Column("oldest_lease_age_ms", "held", age, extra=True)
DEAD = Column("dead_lettered", "dead", number, extra=True, style=lambda count: "red" if count else "")
QUEUE_COLUMNS = [
    QUEUE,
    READY,
    LEASED,
    DELAYED,
    PAUSED,
    CONSUMERS,
    BYTES,
    OLDEST_READY,
    OLDEST_LEASE,
    Column("blocked", shown=number, extra=True, rare=True),
    Column("enqueued", "in", number, extra=True),
    Column("acked", shown=number, extra=True),
    Column("requeued", "back", number, extra=True),
    Column("expired", shown=number, extra=True),
    DEAD,
]

SHOWN_BODY = 200
"""The characters of a body that `peek` shows without --full."""
MESSAGE_COLUMNS = [
    Column("id", style=lambda _: "bold"),
    Column("state", right=False, style=lambda state: STATE_STYLES.get(state, "")),
    Column("attempt"),
    Column("priority", extra=True),
    Column("key", right=False, flexible=True, extra=True, rare=True),
    Column("state_age_ms", "age", age),
    Column("due_ms", "due in", age),
    Column("consumer", "held by", right=False, flexible=True),
    Column("headers", right=False, flexible=True),
    Column("body", right=False, flexible=True),
]


@click.command()
@target()
@as_json
def cnt(target: Target, as_json: bool) -> None:
    """Print the number of ready messages.

    With --json, prints all counts of the queue.
    """
    with target.client() as client:
        counts = client.counts()
    show_result(counts_row(counts), str(counts.ready), as_json)


@click.command()
@click.option("-n", "--count", type=click.IntRange(min=0), default=10, show_default=True, help="How many; 0: all.")
@click.option(
    "--state",
    type=click.Choice([state.name.lower() for state in State]),
    default="ready",
    show_default=True,
    help="Show messages that are ready, leased by a consumer, or delayed.",
)
@click.option("--after-id", type=click.IntRange(0, 2**64 - 1), default=0, metavar="ID", help="Only greater ids.")
@click.option("--full", is_flag=True, help="Show whole bodies.")
@target()
@as_json
@click.pass_context
def peek(
    context: click.Context, target: Target, count: int, state: str, after_id: int, full: bool, as_json: bool
) -> None:
    r"""Look at messages without taking them.

    Shows the next 10 ready messages, in the order of delivery. With `--state all`: leased messages first, then ready
    ones, then delayed ones. Exits with 3 if there is none.

    \b
    Examples:
      stiqueue peek --state leased
      stiqueue peek --queue mail.dead --count 0 --json | jq .headers
    """
    with target.client() as client:
        messages = client.peek_messages(count, state=State[state.upper()], after_id=after_id)
    if not messages:
        note(f"nothing {'there' if state == 'all' else state} in {target.queue}")
        context.exit(ExitCode.NOTHING)
    rows = [message_row(message) for message in messages]
    show_rows(MESSAGE_COLUMNS, rows if as_json else [_readable(row, full) for row in rows], as_json)


@click.command()
@target(queue=False)
@as_json
def queues(target: Target, as_json: bool) -> None:
    """List the queues in use: with messages or consumers.

    Shows the number of messages in each state, their ages, and totals since the server started.
    """
    with target.client() as client:
        counts = client.queues()
    if not counts:
        note("no queues in use")
    else:
        show_rows(QUEUE_COLUMNS, map(counts_row, counts.values()), as_json)


def _readable(row: dict[str, Any], full: bool) -> dict[str, Any]:
    """Return the row of a message for people: headers and body on one line, and the time until it is due."""
    body = row["body"] if row["encoding"] == "utf-8" else f"base64 {row['body']}"
    if not full and len(body) > SHOWN_BODY:
        body = body[: SHOWN_BODY - 1] + "\N{HORIZONTAL ELLIPSIS}"
    due = row["ready_time_ms"] - time.time() * 1_000 if row["ready_time_ms"] else 0
    # In a pipe as JSON: a value may contain anything.
    pairs = row["headers"]
    headers = " ".join(f"{key}={value}" for key, value in pairs.items()) if on_terminal() else json.dumps(pairs)
    return {"key": ""} | row | {"body": body, "headers": headers, "due_ms": max(0, round(due))}
