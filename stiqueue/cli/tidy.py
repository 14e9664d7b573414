"""``stiqueue purge`` and ``redrive``."""

from __future__ import annotations

import sys

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.meter import working
from stiqueue.cli.options import Target, as_json, target
from stiqueue.cli.output import messages, note, show_result
from stiqueue.limits import suffixed
from stiqueue.message import DEAD_SUFFIX, State


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--state",
    type=click.Choice(["ready", "delayed", "all"]),
    default="ready",
    show_default=True,
    help="Drop messages that are ready, delayed, or both.",
)
@target()
@as_json
@click.pass_context
def purge(context: click.Context, target: Target, yes: bool, state: str, as_json: bool) -> None:
    """Drop every ready message of a queue; with --state delayed those that are not due yet.

    Leased messages stay. Asks first; without a terminal it needs --yes.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("stdin is not a terminal, so nobody can confirm: give --yes to drop messages")
    with target.client() as client:
        if not yes:
            counts = client.counts()
            count = {"ready": counts.ready, "delayed": counts.delayed, "all": counts.ready + counts.delayed}[state]
            if not count:
                note(f"nothing {'to drop' if state == 'all' else state} in {target.queue}")
                return
            if not click.confirm(f"Drop {messages(count)} of {target.queue}?", err=True):
                note("nothing was dropped")
                context.exit(ExitCode.FAILED)
        with working("purging"):
            dropped = client.purge(state=State[state.upper()])
    value = {"queue": target.queue, "dropped": dropped}
    show_result(value, f"dropped {messages(dropped)} of {target.queue}", as_json)


@click.command()
@click.option(
    "-n", "--count", type=click.IntRange(min=0), default=0, help="Move at most this many; 0, the default: all."
)
@target()
@as_json
def redrive(target: Target, count: int, as_json: bool) -> None:
    """Move dead letters back to their original queue.

    --queue names the original queue: `redrive --queue mail` empties mail.dead. Attempts restart at 1. If you stop it in
    the middle, it neither loses nor duplicates any message.
    """
    dead = suffixed(target.queue, DEAD_SUFFIX)
    with target.client() as client, working("redriving"):
        moved = client.redrive(count)
    if not moved and target.queue.endswith(DEAD_SUFFIX):
        note(f"--queue names the original queue of the dead letters, perhaps {target.queue.removesuffix(DEAD_SUFFIX)}")
    value = {"queue": target.queue, "moved": moved}
    show_result(value, f"moved {messages(moved)} from {dead}", as_json)
