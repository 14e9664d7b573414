"""``stiqueue cron``."""

from __future__ import annotations

import itertools
import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.options import Target, as_json, target
from stiqueue.cli.output import NoteHandler, note
from stiqueue.cli.signals import caught
from stiqueue.cli.tables import Column, show_rows
from stiqueue.errors import Closed

if TYPE_CHECKING:
    from stiqueue.cron import Schedule

TICK_SECONDS = 0.1
"""The time between two checks for signals."""
STOP_SECONDS = 2.0
"""How long a request that is under way at a signal may take."""

COLUMNS = [
    Column("time", right=False, style=lambda _: "bold"),
    Column("local", right=False, extra=True),
    Column("name", right=False, flexible=True),
    Column("queue", right=False, flexible=True),
    Column("times", right=False, flexible=True, extra=True),
]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--list", "lists", is_flag=True, help="Print the next runs, and enqueue none. Asks no server.")
@click.option("-n", "--count", type=click.IntRange(1), default=10, show_default=True, help="How many --list prints.")
@click.option("--metrics-port", type=click.IntRange(0, 65_535), metavar="NUMBER", help="Serve figures to Prometheus.")
@click.option(
    "--metrics-host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="The address of that port."
)
@target(queue=False)
@as_json
@click.pass_context
def cron(
    context: click.Context,
    target: Target,
    file: Path,
    lists: bool,
    count: int,
    metrics_port: int | None,
    metrics_host: str,
    as_json: bool,
) -> None:
    r"""Enqueue recurring jobs at their times.

    FILE is TOML, with a table [[entry]] for each job. It is read again when it changes; one with mistakes changes
    nothing. Run the command on several machines for safety: each run is enqueued once. Exits with 0 after SIGTERM.

    \b
    Examples:
      stiqueue cron jobs.toml --list
      stiqueue cron jobs.toml --metrics-port 9465
    """
    from stiqueue.cron import BadSchedule, Schedule  # here, because the other commands need none of it

    logger = logging.getLogger("stiqueue.cron")
    logger.handlers, logger.propagate = [NoteHandler()], False
    logger.setLevel(logging.INFO)
    with target.client() as client:
        try:
            schedule = Schedule(client, file, logger=logger)
        except BadSchedule as error:
            for mistake in error.mistakes:
                note(mistake)
            context.exit(ExitCode.USAGE)
        if lists:
            show_rows(COLUMNS, itertools.islice(_rows(schedule), count), as_json)
            return
        with _metrics(schedule, metrics_host, metrics_port):
            note(f"{len(schedule.entries)} entries of {file}; Ctrl-C ends")
            number = _run(schedule)
    if number == signal.SIGINT:
        context.exit(ExitCode.INTERRUPTED)


def _rows(schedule: Schedule) -> Iterator[dict[str, str]]:
    from stiqueue.cron.times import shown

    for run, entry in schedule.upcoming():
        local = datetime.fromtimestamp(run, timezone.utc).astimezone(entry.times.zone)
        yield {
            "time": shown(run),
            "local": local.strftime("%a %Y-%m-%d %H:%M:%S %z"),
            "name": entry.name,
            "queue": entry.queue,
            "times": entry.times.text,
        }


@contextmanager
def _metrics(schedule: Schedule, host: str, port: int | None) -> Iterator[None]:
    if port is None:
        yield
        return
    try:
        from stiqueue.cron.metrics import serve
    except ImportError as error:
        raise click.ClickException(f"--metrics-port: pip install 'stiqueue[metrics]' ({error})") from error
    metrics = serve(schedule, host, port)
    try:
        yield
    finally:
        metrics.close()


def _run(schedule: Schedule) -> int | None:
    """Run until a signal; return it. A second one ends the process."""
    failures: list[BaseException] = []

    def work() -> None:
        try:
            schedule.run()
        except Closed:
            pass  # by us
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work, name="stiqueue-cron", daemon=True)
    with caught() as numbers:
        thread.start()
        while thread.is_alive() and not numbers:
            thread.join(TICK_SECONDS)
    schedule.stop()
    thread.join(STOP_SECONDS)
    if failures:
        raise failures[0]
    return numbers[0] if numbers else None
