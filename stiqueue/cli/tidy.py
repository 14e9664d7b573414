"""``stiqueue purge`` and ``redrive``."""

from __future__ import annotations

import sys

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.meter import working
from stiqueue.cli.options import Target, as_json, target
from stiqueue.cli.output import messages, note, show_result
from stiqueue.message import DEAD_SUFFIX


@click.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@target()
@as_json
@click.pass_context
def purge(context: click.Context, target: Target, yes: bool, as_json: bool) -> None:
    """Drop every ready message of a queue; leased and delayed ones stay.

    Asks before it does; without a terminal to ask on it needs --yes.
    """
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("nobody to ask whether to drop messages: say --yes")
    with target.client() as client:
        if not yes:
            ready = client.counts().ready
            if not ready:
                note(f"nothing ready in {target.queue}")
                return
            if not click.confirm(f"Drop {messages(ready)} of {target.queue}?", err=True):
                note("nothing was dropped")
                context.exit(ExitCode.FAILED)
        with working("purging"):
            dropped = client.purge()
    value = {"queue": target.queue, "dropped": dropped}
    show_result(value, f"dropped {messages(dropped)} of {target.queue}", as_json)


@click.command()
@click.option("-n", "--count", type=click.IntRange(min=0), default=0, help="How many at the most; 0, the default: all.")
@target()
@as_json
def redrive(target: Target, count: int, as_json: bool) -> None:
    """Move dead letters back to where they came from.

    The queue is the one that they died in: `redrive --queue mail` empties mail.dead. They start over with the first
    attempt. Stopped in the middle it neither loses nor doubles any.
    """
    dead = target.queue + DEAD_SUFFIX
    with target.client() as client, working("redriving"):
        moved = client.redrive(count)
    if not moved and target.queue.endswith(DEAD_SUFFIX):
        note(f"--queue names the queue that messages died in, perhaps {target.queue.removesuffix(DEAD_SUFFIX)}")
    value = {"queue": target.queue, "moved": moved}
    show_result(value, f"moved {messages(moved)} from {dead}", as_json)
