"""`SQServer`, the server.

The only module that knows both sides: it joins an engine to the RPCs, and both to a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import grpc.aio

from stiqueue.arguments import check_kind, check_logger, check_seconds, no_such_argument
from stiqueue.engines.opening import engine_for
from stiqueue.errors import StiQueueError
from stiqueue.rules.engine import Engine
from stiqueue.server import announcements, listening
from stiqueue.server.access.certificates import certificates_for
from stiqueue.server.access.guard import guard_for
from stiqueue.server.meter import Meter
from stiqueue.server.process import end_event_loop, new_event_loop
from stiqueue.server.queues_file import QueuesFile
from stiqueue.server.requests import Requests
from stiqueue.server.rpc_server import RpcServer, ServiceNames
from stiqueue.server.upkeep import Upkeep
from stiqueue.settings import IN_MEMORY, MAX_GRACE, Settings, build_settings
from stiqueue.wire import greenlets

START_SECONDS = 30.0
"""How long `start` waits for the server's thread."""
END_SECONDS = 1.0
"""How long tasks that are left at the end may take to hear that they are cancelled."""
STOP_SECONDS = 5.0
"""How long stopping may take beyond its grace."""

Service = tuple[Callable[[Any, Any], None], Any]
"""A generated ``add_XServicer_to_server`` function and the servicer to add; its methods may be async or plain."""


class SQServer:
    """A message queue server.

    For example:

        with SQServer(port=0) as server:
            client = SQClient(port=server.port)
    """

    def __init__(
        self,
        host: str | None = "127.0.0.1",
        port: int = 1234,
        logger: logging.Logger | None = None,
        buff_size: int | None = None,
        ack_required: bool = True,
        ack_timeout: float | None = None,
        data: str | os.PathLike[str] | None = None,
        *,
        services: Sequence[Service] = (),
        interceptors: Sequence[Any] = (),
        **options: Any,
    ) -> None:
        """Make a server; nothing is opened before `start` or `listen`.

        Args:
            host: the address to listen on. None: this machine's host name.
            port: the port; 0: a free one, then in `port`.
            logger: where it logs; default: the logger "stiqueue".
            buff_size: the largest request in bytes; default 4 MiB.
            ack_required: False makes every delivery final (at most once).
            ack_timeout: seconds until an unsettled message is given back although its consumer lives; default: never.
            data: the data file; None keeps messages in memory.
            services: more services to serve on the same port, see `Service`.
            interceptors: `grpc.aio.ServerInterceptor`s, the first is called first.
            options: any other option of `stiqueue.settings.Settings`.

        Raises:
            InvalidRequest: an option has the wrong type or is out of range.
            TypeError: there is no such option.
        """
        unknown = options.keys() - set(Settings.__slots__)
        if unknown:
            raise no_such_argument("SQServer", unknown, Settings.__slots__)
        if data is not None:
            check_kind("data", data, (str, os.PathLike), "the path of the data file, or None for memory")
        self.settings = build_settings(
            host=socket.gethostname() if host is None else host,
            port=port,
            buff_size=buff_size,
            ack_required=ack_required,
            ack_timeout=ack_timeout,
            data=IN_MEMORY if data is None else os.fspath(data),
            **options,
        )
        self.host = self.settings.host
        self.port = self.settings.port
        self.metrics_port = self.settings.metrics_port
        self.logger = logging.getLogger("stiqueue") if logger is None else logger
        check_logger(self.logger)
        self._guard = guard_for(self.settings, self.logger)
        self._queues_file = QueuesFile(self.settings.queues, self.logger) if self.settings.queues else None
        self._meter = Meter()
        self.engine = self.make_engine()
        self._services = tuple(services)
        self._interceptors = tuple(interceptors)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_asked: asyncio.Event | None = None
        self._hurry: asyncio.Event | None = None
        self._grace = 0.0
        self._started = threading.Event()
        """Set when the server serves, or has failed to start."""
        self._failure: BaseException | None = None
        self._engine_failure: StiQueueError | None = None
        self._thread: threading.Thread | None = None

    # -- for subclasses -----------------------------------------------------------------------------------------------

    def make_engine(self) -> Engine:
        """Return the place where messages live."""
        return engine_for(self.settings, self.logger, self._engine_failed, self._meter.committed)

    def add_services(self, server: grpc.aio.Server) -> list[str]:
        """Add the further services to `server`; return their full names, for reflection and health."""
        names = ServiceNames()
        for add, servicer in self._services:
            add(servicer, server)
            add(servicer, names)
        return names.found

    # -- running ------------------------------------------------------------------------------------------------------

    def listen(self) -> None:
        """Serve in this thread until `stop`, SIGTERM or Ctrl-C (signals: only in the main thread).

        Raises:
            OSError: the address cannot be listened on.
        """
        greenlets.check("SQServer")
        self._run(handle_signals=threading.current_thread() is threading.main_thread())
        if self._failure is not None:
            raise self._failure

    def start(self) -> SQServer:
        """Serve in a thread of its own; return when it serves.

        Raises:
            OSError: the address cannot be listened on.
        """
        greenlets.check("SQServer")
        self._started.clear()
        self._thread = threading.Thread(target=self._run, name="stiqueue-server", daemon=True)
        self._thread.start()
        if not self._started.wait(START_SECONDS):
            raise TimeoutError(f"the server did not start within {START_SECONDS:g} s")
        if self._failure is not None:
            self._thread.join(STOP_SECONDS)
            raise self._failure
        return self

    def stop(self, grace: float = 0.0) -> None:
        """End every stream and stop. Safe to call twice, from any thread.

        Args:
            grace: seconds that consumers have to settle what they hold before it is given back.
        """
        check_seconds("grace", grace, MAX_GRACE, reason="BAD_OPTION")
        loop = self._loop
        if loop is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(self._ask_to_stop, grace)
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(grace + START_SECONDS)
            self._thread = None

    def __enter__(self) -> SQServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self, handle_signals: bool = False) -> None:
        self._failure = None
        loop = new_event_loop()
        try:
            loop.run_until_complete(self._serve(handle_signals))
        except BaseException as error:
            self._failure = error
        finally:
            self._loop = None
            self._started.set()
            end_event_loop(loop, END_SECONDS)

    async def _serve(self, handle_signals: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked, self._hurry = asyncio.Event(), asyncio.Event()
        if handle_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._ask_to_stop, self.settings.grace)
        requests = Requests(self.engine, self.settings, self.logger, self._guard)
        interceptors = [*([self._guard] if self._guard else []), *self._interceptors]
        rpc_server = RpcServer(self.settings, requests, interceptors, self.add_services)
        try:
            certificates = certificates_for(self.settings, self.logger)
            self.port = await rpc_server.listen(certificates.credentials() if certificates else None)
            self._meter.open(self.settings, self.port, self.engine, requests, self._guard)
            self.metrics_port = self._meter.port
            if self._queues_file is not None:
                self.engine.fix(self._queues_file.settings)
            await self.engine.start()
            await rpc_server.open()
            announcements.serving(self.settings, self.port, self.engine.description, self.metrics_port, self.logger)
            self._started.set()
            upkeep = Upkeep(
                self.logger,
                self.port,
                listening.most_connections(self.settings),
                self._guard,
                certificates,
                (self._queues_file, self.engine.fix) if self._queues_file else None,
            )
            await upkeep.until(self._stop_asked, rpc_server.streams.end_revoked)
            stopping = announcements.Stopping(self.engine, self.logger)
            await stopping.begins(self._grace)
            await rpc_server.drain(self._grace, self._hurry)
            await stopping.ended()
        except BaseException:
            await rpc_server.abort()
            raise
        finally:
            await self._meter.close()
            await self.engine.close()
        if self._engine_failure is not None:
            raise self._engine_failure
        self.logger.info("stopped")

    def _engine_failed(self, error: StiQueueError) -> None:
        """Stop at once: nothing can be confirmed any more. Called on the engine's thread."""
        self._engine_failure = error
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ask_to_stop, 0.0)

    def _ask_to_stop(self, grace: float) -> None:
        """Begin to stop, or when that has begun, hurry. Runs on the loop."""
        assert self._stop_asked is not None
        assert self._hurry is not None
        if self._stop_asked.is_set():
            self._hurry.set()
        self._grace = grace
        self._stop_asked.set()
