"""``stiqueue web``: the console."""

from __future__ import annotations

import logging
import sys
from importlib.util import find_spec
from typing import Any

import click

from stiqueue.cli.options import Target, target
from stiqueue.cli.output import note

_FILE = click.Path(exists=True, dir_okay=False)


def web_options(port: int | None, text: str) -> list[click.Parameter]:
    """Return the options of a console's own address; `port` is the default of its port, which `text` explains."""
    return [
        click.Option(
            ["--web-host"],
            default="127.0.0.1",
            show_default=True,
            envvar="STIQUEUE_WEB_HOST",
            metavar="ADDRESS",
            help="The address on which the console listens.",
        ),
        click.Option(
            ["--web-port"],
            type=click.IntRange(0, 65_535),
            default=port,
            show_default=port is not None,
            envvar="STIQUEUE_WEB_PORT",
            metavar="NUMBER",
            help=text,
        ),
        click.Option(
            ["--web-origin"],
            default="",
            envvar="STIQUEUE_WEB_ORIGIN",
            metavar="URL",
            help="The console's address in browsers, such as https://queues.example.org, behind a proxy.",
        ),
        click.Option(
            ["--web-tls-cert"],
            type=_FILE,
            envvar="STIQUEUE_WEB_TLS_CERT",
            help="Encrypt the console with this certificate (PEM).",
        ),
        click.Option(
            ["--web-tls-key"], type=_FILE, envvar="STIQUEUE_WEB_TLS_KEY", help="The console's certificate's key (PEM)."
        ),
        click.Option(
            ["--web-open"],
            is_flag=True,
            envvar="STIQUEUE_WEB_OPEN",
            help="Let everyone act who reaches the console, where the server asks for no token.",
        ),
    ]


@click.command(params=web_options(8080, "The port on which the console listens; 0: a free one."))
@target(queue=False)
def web(target: Target, **given: Any) -> None:
    """Show the queues in a browser.

    Starts the console, by default at http://127.0.0.1:8080, until Ctrl-C. Each person logs in with a token of the
    server; if the server asks for none, the console listens on this machine only. Needs the extra `web`.
    """
    run(target, given)


def need_extra() -> None:
    """Refuse to start a console without the packages of the extra `web`."""
    if missing := [name for name in ("jinja2", "starlette", "uvicorn") if find_spec(name) is None]:
        raise click.ClickException(f"the console needs {missing[0]}: pip install 'stiqueue[web]'")


def run(target: Target, given: dict[str, Any]) -> None:
    """Run a console for the server of `target`, with its own options as they were `given`.

    Raises:
        InvalidRequest: the options do not fit together.
        OSError: the address cannot be listened on.
    """
    need_extra()
    from stiqueue.web.options import WebOptions
    from stiqueue.web.serving import WebServer, check_open

    options = WebOptions(target.host, target.port, target.tls, target.token, target.server_timeout, **given)
    check_open(options)
    logger = logging.getLogger("stiqueue.web")
    logger.addHandler(logging.StreamHandler(sys.stderr))
    server = WebServer(options)
    port = server.bind()
    server.run(lambda: note(f"the console of {options.server} is at {options.url(port)}"))
