"""Serves a console by uvicorn until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator

import uvicorn

from stiqueue.errors import InvalidRequest, StiQueueError
from stiqueue.web.app import App
from stiqueue.web.connection import Connection
from stiqueue.web.options import WebOptions
from stiqueue.wire.credentials import warn_of_readers

GRACE_SECONDS = 3
"""How long the answers under way may take at the end."""
MOST_CONNECTIONS = 1_000
LOGGER = logging.getLogger("stiqueue.web")


class _Server(uvicorn.Server):
    """Tells when it serves, and ends what browsers watch before it waits for their connections."""

    def __init__(self, config: uvicorn.Config, app: App, serves: Callable[[], None]) -> None:
        super().__init__(config)
        self._app = app
        self._serves = serves

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """End at a signal and not by it: uvicorn itself would raise the signal again in the end."""
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGTERM, signal.SIGINT) if threading.current_thread() is threading.main_thread() else ()
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._serves()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await self._app.close()
        await super().shutdown(sockets)


class WebServer:
    """A console on a port. `bind`, then `run`."""

    def __init__(self, options: WebOptions) -> None:
        """Prepare; nothing is opened."""
        self._options = options
        self._socket: socket.socket | None = None
        self._server: uvicorn.Server | None = None
        self._is_stopped = False

    def bind(self) -> int:
        """Take the port and return it.

        Raises:
            OSError: the address cannot be listened on.
        """
        host, port = self._options.web_host, self._options.web_port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        bound = socket.socket(family)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind((host, port))
            bound.listen(128)
        except OSError as error:
            bound.close()
            raise OSError(error.errno, f"cannot listen on {host}:{port}: {error.strerror}") from error
        self._socket = bound
        return int(bound.getsockname()[1])

    def run(self, serves: Callable[[], None] = lambda: None) -> None:
        """Serve until `stop`, SIGTERM or Ctrl-C; `serves` is called when it does.

        Raises:
            InvalidRequest: certificate and key cannot be used.
        """
        assert self._socket is not None
        asyncio.run(self._serve(serves))

    async def _serve(self, serves: Callable[[], None]) -> None:
        options = self._options
        app = App(options)
        config = uvicorn.Config(
            app.asgi,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            timeout_graceful_shutdown=GRACE_SECONDS,
            http=Connection,
            timeout_keep_alive=30,  # `Connection` ends it before
            ssl_certfile=options.web_tls_cert,
            ssl_keyfile=options.web_tls_key,
        )
        if options.web_tls_cert is not None and options.web_tls_key is not None:
            try:
                config.load()
            except (OSError, ssl.SSLError) as error:
                why = error.strerror or str(error)
                raise InvalidRequest(f"web_tls_cert, web_tls_key: {why}", "BAD_OPTION") from error
            warn_of_readers("web_tls_key", options.web_tls_key, LOGGER)
        assert self._socket is not None
        self._server = _Server(config, app, serves)
        if self._is_stopped:  # before there was something to stop
            self._socket.close()
            return
        await self._server.serve(sockets=[self._socket])

    def stop(self) -> None:
        """Ask it to end, or not to begin. From any thread."""
        self._is_stopped = True
        if self._server is not None:
            self._server.should_exit = True


def check_open(options: WebOptions) -> None:
    """Refuse to listen to other machines for a server that asks for no token, if it can be asked now.

    Raises:
        InvalidRequest: everybody could act.
    """
    if options.is_local or options.web_open:
        return

    async def asks_for_no_token() -> bool:
        from stiqueue.web.link import Link

        link = Link(options, None)
        try:
            await link.counts()
        except StiQueueError:
            return False
        finally:
            await link.close()
        return True

    if asyncio.run(asks_for_no_token()):
        raise InvalidRequest(
            f"web_host: the server asks for no token, so everyone who reaches {options.web_host} could read and drop "
            "messages; give the server --tokens, or the console --web-open",
            "BAD_OPTION",
        )
