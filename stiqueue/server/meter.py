"""The metrics of one server, which serves them only if `metrics_port` is set."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from stiqueue.errors import StiQueueError
from stiqueue.rules.engine import Engine
from stiqueue.server import descriptors, listening
from stiqueue.server.access.guard import Guard
from stiqueue.server.requests import Requests
from stiqueue.settings import Settings

if TYPE_CHECKING:
    from stiqueue.server.metrics import Metrics, MetricsPort

COUNT_SECONDS = 5.0
"""The time limit for the counts of all queues."""


class Meter:
    """Does nothing until `open`; then counts and serves the metrics of `stiqueue.server.metrics`."""

    def __init__(self) -> None:
        """Stay closed."""
        self._metrics: Metrics | None = None
        self._served: MetricsPort | None = None

    @property
    def port(self) -> int | None:
        """The port of the metrics; None while they are not served."""
        return None if self._served is None else self._served.port

    def open(self, settings: Settings, port: int, engine: Engine, requests: Requests, guard: Guard | None) -> None:
        """Serve the metrics of the server at `port`, if its settings ask for them. Runs on its event loop.

        Raises:
            StiQueueError: the extra ``metrics`` is not installed.
            OSError: the address cannot be listened on.
        """
        if settings.metrics_port is None:
            return
        try:  # imported only here, for it is in an extra
            from stiqueue.server.metrics import Metrics
        except ImportError as error:
            raise StiQueueError(f"metrics_port: needs stiqueue[metrics]: {error}") from error
        loop = asyncio.get_running_loop()
        self._metrics = metrics = Metrics()
        metrics.watch(lambda: asyncio.run_coroutine_threadsafe(engine.counts([]), loop).result(COUNT_SECONDS))
        metrics.watch_connections(lambda: descriptors.count_connections(port), listening.most_connections(settings))
        requests.observe = metrics.called
        if guard is not None:
            guard.observe = metrics.called
        self._served = metrics.serve(settings.host, settings.metrics_port)

    def committed(self, changes: int, seconds: float) -> None:
        """Count a transaction. Called on the engine's thread."""
        if self._metrics is not None:
            self._metrics.committed(changes, seconds)

    async def close(self) -> None:
        """Stop serving the metrics."""
        served, self._served = self._served, None
        if served is not None:
            await asyncio.to_thread(served.close)
