"""The options that commands share: server, queue, timeouts, and JSON."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import click
from click.shell_completion import CompletionItem

from stiqueue.arguments import seconds_of
from stiqueue.cli import security
from stiqueue.cli.output import NoteHandler
from stiqueue.client.calls.tls import TLS
from stiqueue.errors import StiQueueError
from stiqueue.limits import DEFAULT_QUEUE, MAX_DELAY, queue_name
from stiqueue.sqclient import SQClient

SERVER_SECONDS = 5.0
"""How long a command waits for an absent server by default."""
WORKER_SECONDS = 60.0
"""How long `consume` waits: enough to survive a server restart."""
COMPLETION_SECONDS = 0.5
"""How long completing a queue name may take."""

Callback = Callable[..., Any]
Decorator = Callable[[Callback], Callback]


@dataclass(frozen=True)
class Target:
    """The server and the queue of a command."""

    host: str
    port: int
    queue: str = DEFAULT_QUEUE
    server_timeout: float = SERVER_SECONDS
    tls: TLS | None = None
    token: str | None = field(default=None, repr=False)

    def client(self, ack_required: bool = True, retry_delay: float = 0.0) -> SQClient:
        """Return a client. Use it in a ``with`` block: after an exception it gives back its messages."""
        logger = logging.getLogger("stiqueue.cli")
        logger.handlers = [NoteHandler()]
        logger.propagate = False
        return SQClient(
            self.host,
            self.port,
            logger,
            ack_required=ack_required,
            queue=self.queue,
            timeout=self.server_timeout,
            retry_delay=retry_delay,
            tls=self.tls,
            token=self.token,
        )


def seconds(text: str) -> float:
    """Parse a duration such as 90, 1.5, 250ms, 5m, 2h or 7d; return seconds."""
    found = seconds_of(text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d")
    return found


def _queue(context: click.Context, parameter: click.Parameter, value: str) -> str:
    try:
        return queue_name(value)
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


def _complete_queue(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the server's queue names that match."""
    host, port = context.params.get("host") or "127.0.0.1", context.params.get("port") or 1234
    try:
        with SQClient(host, port, timeout=COMPLETION_SECONDS) as client:
            return [CompletionItem(name) for name in client.queues() if name.startswith(incomplete)]
    except StiQueueError:
        return []


_HOST: Decorator = click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    envvar="STIQUEUE_HOST",
    show_envvar=True,
    metavar="ADDRESS",
    help="The server's address.",
)
_PORT: Decorator = click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=1234,
    show_default=True,
    envvar="STIQUEUE_PORT",
    show_envvar=True,
    metavar="NUMBER",
    help="The server's port.",
)
_QUEUE: Decorator = click.option(
    "-q",
    "--queue",
    default=DEFAULT_QUEUE,
    show_default=True,
    metavar="NAME",
    callback=_queue,
    shell_complete=_complete_queue,
    help="The queue.",
)
flat: Decorator = click.option(
    "--flat", is_flag=True, help="Drop priorities, for a server without them; the order stays the same."
)
as_json: Decorator = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object per line, for scripts."
)


def duration(*names: str, text: str, most: float, least: float = 0.0, default: float | None = None) -> Decorator:
    """Return an option for a duration of `least` to `most` seconds."""

    def check(context: click.Context, parameter: click.Parameter, value: float | None) -> float | None:
        if value is not None and value > most:
            raise click.BadParameter(f"{value:g} seconds are more than {most:g}")
        if value is not None and value < least:
            raise click.BadParameter(f"{value:g} seconds are less than {least:g}")
        return value

    default_text = None if default is None else f"{default:g}"
    return click.option(
        *names, type=seconds, default=default_text, show_default=True, metavar="SECONDS", callback=check, help=text
    )


def target(queue: bool = True, waits: str = "--timeout", server_seconds: float = SERVER_SECONDS) -> Decorator:
    """Add the options for the server and the queue; the command receives them as the argument `target`.

    Args:
        queue: whether the command works on one queue.
        waits: the name of the timeout for an absent server.
        server_seconds: the default of that timeout.
    """
    options: list[Decorator] = [
        *([_QUEUE] if queue else []),
        _HOST,
        _PORT,
        duration(
            waits,
            "server_timeout",
            text="How long to wait for an absent server.",
            default=server_seconds,
            most=MAX_DELAY,
        ),
        *security.options(),
    ]

    def decorate(command: Callback) -> Callback:
        @functools.wraps(command)
        def with_target(
            *arguments: Any, host: str, port: int, server_timeout: float, queue: str = DEFAULT_QUEUE, **others: Any
        ) -> Any:
            tls, token = security.read_tls(others), security.read_token(others)
            return command(*arguments, target=Target(host, port, queue, server_timeout, tls, token), **others)

        decorated: Callback = with_target
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate
