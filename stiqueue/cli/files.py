"""``stiqueue check`` and ``salvage``: the data file of a server that does not run."""

from __future__ import annotations

import dataclasses

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.meter import working
from stiqueue.cli.options import as_json
from stiqueue.cli.output import messages, show_json, show_result, write

_PATH = click.Path()  # that it exists is told by those who read it: of a data file, a log alone may be left


@click.command()
@click.argument("file", type=_PATH)
@as_json
@click.pass_context
def check(context: click.Context, file: str, as_json: bool) -> None:
    """Check the data file FILE of a server that does not run, as the server does at its start, and every message in it.

    Changes nothing. Ends with exit code 1 when the file is damaged.
    """
    from stiqueue.engines import salvage as salvaging

    with working("checking"):
        report = salvaging.check(file)
    if as_json:
        show_json({**dataclasses.asdict(report), "path": str(report.path), "good": not report.problems})
    else:
        write("".join(f"{line}\n" for line in report.lines).encode())
    if report.problems:
        context.exit(ExitCode.FAILED)


@click.command()
@click.argument("file", type=_PATH)
@click.argument("out", type=_PATH)
@as_json
def salvage(file: str, out: str, as_json: bool) -> None:
    """Copy every message that can be read in the damaged data file FILE into a new one, OUT.

    Changes nothing in FILE, and refuses to write over OUT. Start a server on OUT then, with --data.
    """
    from stiqueue.engines import salvage as salvaging

    with working("salvaging"):
        done = salvaging.salvage(file, out)
    sentence = f"saved {messages(done.saved)} in {out}, {done.lost:,} are lost as far as is known"
    show_result({"out": out, **dataclasses.asdict(done)}, sentence, as_json)
