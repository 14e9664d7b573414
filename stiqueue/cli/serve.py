"""``stiqueue serve``: the server, with the options of ``python -m stiqueue.sqserver``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

import click

from stiqueue import settings
from stiqueue.errors import InvalidRequest


def _actions() -> Iterator[argparse.Action]:
    """Iterate over the server's options, as its own command declares them."""
    parser = argparse.ArgumentParser(add_help=False)
    settings.add_options(parser)
    yield from parser._actions


def _option(action: argparse.Action) -> click.Option:
    flag = action.nargs == 0
    names = "/".join(action.option_strings) if flag else action.option_strings[0]
    kind = click.Choice(list(action.choices)) if action.choices else None
    text = (action.help or "").replace("%%", "%")
    metavar = None if flag else action.dest.rpartition("_")[2].upper()
    return click.Option([action.dest, names], type=kind, default=None, help=text, metavar=metavar)


def _run(**given: Any) -> None:
    """Start a server, until SIGTERM or Ctrl-C.

    Each option can be given as STIQUEUE_<NAME> in the environment as well.
    """
    try:
        settings.read_settings(argparse.Namespace(**given))
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    # Imported here: no other command needs it, and this one is the only one that may have it.
    from stiqueue import sqserver

    arguments = []
    for action in _actions():
        value = given[action.dest]
        if action.nargs == 0 and value is not None:
            arguments.append(action.option_strings[0 if value else 1])
        elif value is not None:
            arguments += [action.option_strings[0], value]
    sqserver.main(arguments)


serve = click.Command("serve", callback=_run, params=[_option(action) for action in _actions()], help=_run.__doc__)
