"""``stiqueue top``: the queues, live."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from stiqueue.cli.keys import Keys
from stiqueue.cli.look import (
    BYTES,
    CONSUMERS,
    DEAD,
    DELAYED,
    LEASED,
    OLDEST_LEASE,
    OLDEST_READY,
    PAUSED,
    QUEUE,
    READY,
)
from stiqueue.cli.options import Target, as_json, duration, target
from stiqueue.cli.output import counts_row, has_rich, on_terminal, printable
from stiqueue.cli.signals import caught
from stiqueue.cli.tables import Column, hidden, rate, show_rows, table
from stiqueue.errors import Unavailable
from stiqueue.limits import DAY
from stiqueue.message import Counts
from stiqueue.sqclient import SQClient

if TYPE_CHECKING:
    from rich.table import Table

RATES = {"enqueued_rate": "enqueued", "acked_rate": "acked", "requeued_rate": "requeued"}
"""The total behind each rate."""
FRAME_LINES = 6
"""Lines of the screen other than queues."""
PATIENCE_SECONDS = 1.0
"""How long the screen stands still when the server stops answering."""


COLUMNS = [
    QUEUE,
    READY,
    LEASED,
    DELAYED,
    PAUSED,
    CONSUMERS,
    Column("enqueued_rate", "in/s", rate),
    Column("acked_rate", "out/s", rate),
    Column("requeued_rate", "back/s", rate, extra=True, style=lambda rate: "red" if rate else ""),
    OLDEST_READY,
    OLDEST_LEASE,
    DEAD,
    BYTES,
]


class Look(NamedTuple):
    """The queues at one moment."""

    rows: list[dict[str, Any]]
    time_ms: int
    problem: str = ""
    """Why the rows are stale: the error of a server that does not answer."""


@click.command()
@duration("--interval", text="The time between two updates.", default=1.0, least=0.01, most=DAY)
@click.option(
    "-n",
    "--count",
    type=click.IntRange(min=0),
    default=0,
    help="The number of updates; 0, the default: until stopped.",
)
@target(queue=False)
@as_json
def top(target: Target, interval: float, count: int, as_json: bool) -> None:
    """Watch the queues, live.

    Shows their sizes, and the messages in and out per second. On a terminal, refreshes the table in place until q or
    Ctrl-C; elsewhere, and without the extra `cli`, prints it again every time.
    """
    live = on_terminal() and has_rich() and not as_json
    screen = Screen(f"{target.host}:{target.port}", stays=count > 0) if live else None
    with target.client() as client, caught() as signals, Keys() as keys, screen or nullcontext():
        for times, look in enumerate(_looks(client), 1):
            if screen is not None:
                screen.show(look)
            elif look.problem:
                raise Unavailable(look.problem)
            else:
                rows = [{"time_ms": look.time_ms, **row} for row in look.rows]
                show_rows([Column("time_ms"), *COLUMNS], rows, as_json)
            if times == count or keys.wait(interval, signals) == "q" or signals:
                break


def _looks(client: SQClient) -> Iterator[Look]:
    """Iterate over looks at the queues, with rates since the previous one. Only the first raises `Unavailable`."""
    before: dict[str, Counts] = {}
    before_at: float | None = None
    look: Look | None = None
    while True:
        try:
            queues = client.queues(timeout=None if look is None else PATIENCE_SECONDS)
        except Unavailable as error:
            if look is None:
                raise
            yield look._replace(problem=str(error))
            continue
        now = time.monotonic()
        seconds = now - before_at if before_at is not None else 0.0
        rows = [counts_row(counts) | _rates(counts, before.get(name), seconds) for name, counts in queues.items()]
        before, before_at = queues, now
        look = Look(rows, round(time.time() * 1_000))
        yield look


def _rates(counts: Counts, before: Counts | None, seconds: float) -> dict[str, float]:
    rates = {}
    for name, total in RATES.items():
        count = getattr(counts, total)
        last = getattr(before, total, 0)
        # The total is smaller after a restart of the server.
        gained = count - last if count >= last else count
        rates[name] = round(gained / seconds, 1) if seconds else 0.0
    return rates


class Screen:
    """A table that is refreshed in place, in a ``with`` block."""

    def __init__(self, server: str, stays: bool) -> None:
        """Show the queues of `server`; with `stays` leave the last table behind, otherwise use a separate screen."""
        from rich.live import Live

        self._server = server
        self._live = Live(screen=not stays, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)

    def show(self, look: Look) -> None:
        """Show the queues, the fullest and busiest if there are too many."""
        from rich.console import Group
        from rich.text import Text

        waiting = sum(row["ready"] + row["leased"] + row["delayed"] for row in look.rows)
        total = {key: sum(row[key] for row in look.rows) for key in RATES}
        # One line even on a narrow terminal: the least important part is at the end.
        head = Text(f"StiQueue at {self._server}", "bold", no_wrap=True, overflow="ellipsis")
        head.append(
            f"   q quits   {len(look.rows):,} queues, {waiting:,} messages, "
            f"in {total['enqueued_rate']:,.0f}/s, out {total['acked_rate']:,.0f}/s"
            f"   {time.strftime('%H:%M:%S', time.localtime(look.time_ms / 1_000))}",
            "not bold",
        )
        parts: list[Text | Table] = [head, Text(printable(look.problem), "red")]
        room = max(1, self._live.console.height - FRAME_LINES)
        rows = look.rows
        if len(rows) > room:
            busiest = sorted(rows, key=lambda row: (-row["ready"] - row["leased"] - row["acked_rate"], row["queue"]))
            rows = sorted(busiest[:room], key=lambda row: str(row["queue"]))
        parts.append(table(COLUMNS, rows, self._live.console.width))
        left_out = hidden(COLUMNS, rows, self._live.console.width)
        if left_out:
            parts.append(Text(f"too narrow for: {', '.join(left_out)}", "dim", no_wrap=True, overflow="ellipsis"))
        if len(rows) < len(look.rows):
            parts.append(Text(f"and {len(look.rows) - len(rows):,} more", "dim"))
        self._live.update(Group(*parts), refresh=True)

    def __enter__(self) -> Screen:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()
