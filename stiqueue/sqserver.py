"""The server: `SQServer`, and the command ``python -m stiqueue.sqserver``.

The only module that knows both sides: it joins an engine to the RPCs, and both to a port.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc.aio

from stiqueue import descriptors, listening, logs
from stiqueue._version import __version__
from stiqueue.certificates import certificates_for
from stiqueue.engine import Engine
from stiqueue.engines.opening import IN_MEMORY, engine_for
from stiqueue.errors import StiQueueError
from stiqueue.guard import guard_for
from stiqueue.process import new_event_loop, tune
from stiqueue.rpc_server import RpcServer, ServiceNames
from stiqueue.servicer import QueueServicer
from stiqueue.settings import Settings, build_settings, parse_arguments
from stiqueue.upkeep import Upkeep

if TYPE_CHECKING:
    from stiqueue.metrics import Metrics, MetricsPort

START_SECONDS = 30.0
"""How long `start` waits for the server's thread."""
STOP_SECONDS = 5.0
"""How long stopping may take beyond its grace."""
COUNT_SECONDS = 5.0
"""How long the metrics wait for the counts of all queues."""

Service = tuple[Callable[[Any, Any], None], Any]
"""A generated ``add_XServicer_to_server`` function and the servicer to add; its methods may be async or plain."""


class SQServer:
    """A message queue server.

    Example:
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
            InvalidRequest: an option is out of range.
        """
        unknown = options.keys() - set(Settings.__slots__)
        if unknown:
            raise TypeError(f"SQServer has no option {', '.join(sorted(unknown))}")
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
        self.logger = logger or logging.getLogger("stiqueue")
        self._guard = guard_for(self.settings, self.logger)
        self._metrics: Metrics | None = None
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
        return engine_for(self.settings, self.logger, self._engine_failed, self._committed)

    def make_servicer(self) -> QueueServicer:
        """Return what serves the five RPCs."""
        return QueueServicer(self.engine, self.settings, self.logger, self._guard)

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
        self._run(handle_signals=threading.current_thread() is threading.main_thread())
        if self._failure is not None:
            raise self._failure

    def start(self) -> SQServer:
        """Serve in a thread of its own; return when it serves.

        Raises:
            OSError: the address cannot be listened on.
        """
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
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    async def _serve(self, handle_signals: bool) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop_asked, self._hurry = asyncio.Event(), asyncio.Event()
        if handle_signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self._ask_to_stop, self.settings.grace)
        servicer = self.make_servicer()
        interceptors = [*([self._guard] if self._guard else []), *self._interceptors]
        rpc_server = RpcServer(self.settings, servicer, interceptors, self.add_services)
        metrics_port = None
        try:
            certificates = certificates_for(self.settings, self.logger)
            self.port = await rpc_server.listen(certificates.credentials() if certificates else None)
            metrics_port = self._serve_metrics(servicer)
            await self.engine.start()
            await rpc_server.open()
            self._announce()
            self._started.set()
            upkeep = Upkeep(
                self.logger, self.port, listening.most_connections(self.settings), self._guard, certificates
            )
            await upkeep.until(self._stop_asked, servicer.end_revoked)
            await rpc_server.drain(self._grace, self._hurry)
        except BaseException:
            await rpc_server.abort()
            raise
        finally:
            if metrics_port is not None:
                await asyncio.to_thread(metrics_port.close)
            await self.engine.close()
        if self._engine_failure is not None:
            raise self._engine_failure
        self.logger.info("stopped")

    def _serve_metrics(self, servicer: QueueServicer) -> MetricsPort | None:
        if self.settings.metrics_port is None:
            return None
        try:  # imported only here, for it is in an extra
            from stiqueue.metrics import Metrics
        except ImportError as error:
            raise StiQueueError(f"metrics_port: needs stiqueue[metrics]: {error}") from error
        loop = asyncio.get_running_loop()
        self._metrics = metrics = Metrics()
        metrics.watch(lambda: asyncio.run_coroutine_threadsafe(self.engine.counts([]), loop).result(COUNT_SECONDS))
        metrics.watch_connections(
            lambda: descriptors.count_connections(self.port), listening.most_connections(self.settings)
        )
        servicer.observe = metrics.called
        if self._guard is not None:
            self._guard.observe = metrics.called
        port = metrics.serve(self.host, self.settings.metrics_port)
        self.metrics_port = port.port
        return port

    def _committed(self, changes: int, seconds: float) -> None:
        """Count a transaction. Called on the engine's thread."""
        if self._metrics is not None:
            self._metrics.committed(changes, seconds)

    def _announce(self) -> None:
        self.logger.info(
            "StiQueue %s on %s:%d, messages %s", __version__, self.host, self.port, self.engine.description
        )
        most = listening.most_connections(self.settings)
        if most < (self.settings.max_connections or 0):
            self.logger.warning("max_connections: only %s, for want of file descriptors (ulimit -n)", f"{most:,}")
        lacks = listening.lacks(self.settings)
        if lacks:
            self.logger.warning("%s is reachable from other machines, without %s", self.host, lacks)

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: serve until SIGTERM or Ctrl-C; ends with 0, or with 1 when it cannot serve."""
    settings = parse_arguments(arguments)
    tune()
    try:
        logger = logs.configure(settings)
        options = {name: getattr(settings, name) for name in Settings.__slots__}
        SQServer(logger=logger, **options).listen()
    except (StiQueueError, OSError) as error:
        print(f"stiqueue: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
