"""``stiqueue serve``: the server, with the options of ``python -m stiqueue.sqserver``."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import click

from stiqueue import settings
from stiqueue.cli.output import note
from stiqueue.cli.web import need_extra, web_options
from stiqueue.errors import InvalidRequest

STOP_SECONDS = 10.0
"""How long the console beside a server may take to end."""


def _actions() -> Iterator[argparse.Action]:
    """Iterate over the server's options, as ``python -m stiqueue.sqserver`` declares them."""
    parser = argparse.ArgumentParser(add_help=False)
    settings.add_options(parser)
    yield from parser._actions


def _option(action: argparse.Action) -> click.Option:
    flag = action.nargs == 0
    names = "/".join(action.option_strings) if flag else action.option_strings[0]
    kind = click.Choice(list(action.choices)) if action.choices else None
    text = (action.help or "").replace("%%", "%")
    metavar = None if flag or kind else str(action.metavar)
    return click.Option([action.dest, names], type=kind, default=None, help=text, metavar=metavar)


def _run(**given: Any) -> None:
    """Run a server until SIGTERM or Ctrl-C; with --web-port, and a console beside it.

    You can also set each option as STIQUEUE_<NAME> in the environment.
    """
    console = {name: given.pop(name) for name in list(given) if name.startswith("web_")}
    try:
        options = settings.read_settings(argparse.Namespace(**given))
    except InvalidRequest as error:
        raise click.UsageError(str(error)) from error
    # Imported here, because only this command needs the server, and only it may import it.
    from stiqueue import sqserver

    arguments = []
    for action in _actions():
        value = given[action.dest]
        if action.nargs == 0 and value is not None:
            arguments.append(action.option_strings[0 if value else 1])
        elif value is not None:
            arguments += [action.option_strings[0], value]
    with _console_beside(options, console):
        sqserver.main(arguments)


@contextlib.contextmanager
def _console_beside(options: settings.Settings, given: dict[str, Any]) -> Iterator[None]:
    """Run the console in a process of its own, if it is asked for."""
    if given["web_port"] is None:
        yield
        return
    need_extra()
    if not options.port:
        raise click.UsageError("--web-port: the console must know the server's port; give --port a number")
    told = {
        **given,
        "host": "127.0.0.1" if options.host in ("0.0.0.0", "::") else options.host,
        "port": options.port,
        "web_tls_cert": given["web_tls_cert"] or options.tls_cert,
        "web_tls_key": given["web_tls_key"] or options.tls_key,
        "cert": options.tls_cert,
        "key": options.tls_key,
        "shows": options.tls_client_ca is not None,
        "has_tokens": options.tokens is not None,
    }
    command = [sys.executable, "-m", "stiqueue.web.beside"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(f"{json.dumps(told)}\n")
            process.stdin.flush()
            word, _, text = process.stdout.readline().strip().partition(" ")
            if word != "listens":
                raise click.ClickException(text or "the console ended at once")
            note(f"the console is at {text}")
            yield
        finally:
            with contextlib.suppress(OSError):
                process.stdin.close()  # which ends it
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


_params = [
    *(_option(action) for action in _actions()),
    *web_options(None, "Start the console beside the server, on this port; 0: a free one."),
]
serve = click.Command("serve", callback=_run, params=_params, help=_run.__doc__)
