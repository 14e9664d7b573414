"""``stiqueue check`` and ``salvage``: the data file of a stopped server."""

from __future__ import annotations

import dataclasses

import click

from stiqueue.cli.codes import ExitCode
from stiqueue.cli.meter import working
from stiqueue.cli.options import as_json
from stiqueue.cli.output import messages, show_json, show_result, write

_PATH = click.Path()  # not checked for existence here: only the log of a data file may be left


@click.command()
@click.argument("file", type=_PATH)
@as_json
@click.pass_context
def check(context: click.Context, file: str, as_json: bool) -> None:
    """Check the data file FILE of a stopped server.

    Checks everything that the server checks at startup, and every message. Changes nothing. Exits with 1 if the file is
    damaged.
    """
    from stiqueue.engines.sqlite.damage import salvage as salvaging

    with working("checking"):
        report = salvaging.check(file)
    if as_json:
        row = dataclasses.asdict(report) | {"path": str(report.path), "good": not report.problems} | report.loss.row
        del row["loss"]
        show_json(row)
    else:
        write("".join(f"{line}\n" for line in report.lines).encode())
    if report.problems:
        context.exit(ExitCode.FAILED)


@click.command()
@click.argument("file", type=_PATH)
@click.argument("out", type=_PATH)
@as_json
def salvage(file: str, out: str, as_json: bool) -> None:
    """Copy the readable messages of a damaged FILE to OUT.

    Both are data files. Does not change FILE, and does not overwrite OUT. Afterwards start a server with --data OUT.
    """
    from stiqueue.engines.sqlite.damage import salvage as salvaging

    with working("salvaging"):
        done = salvaging.salvage(file, out)
    sentence = f"saved {messages(done.saved)} in {out}, {done.loss.words}"
    show_result({"out": out, "saved": done.saved, **done.loss.row}, sentence, as_json)
