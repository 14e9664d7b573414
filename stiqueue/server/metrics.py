"""The metrics of a server, served to Prometheus on a separate port. Needs the extra ``metrics``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from stiqueue._version import __version__
from stiqueue.message import Counts

CALL_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
COMMIT_BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0)
CHANGE_BUCKETS = (1, 2, 5, 10, 25, 50, 100, 500, 2_500)
STREAMS = ("Deq", "Pipe")
METHODS = ("Enq", "Ack", "Cnt", "Peek", "Configure", "Settings", *STREAMS)
CODES = ("OK", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNAUTHENTICATED", "PERMISSION_DENIED")
"""The status codes that are counted from 0 on: Prometheus cannot see the first call in a count that begins with 1."""
JOIN_SECONDS = 5.0


class Metrics:
    """Counts calls and commits. Thread-safe, by the library's own locks."""

    def __init__(self) -> None:
        """Start from zero."""
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._seconds = Histogram(
            "stiqueue_call_seconds",
            "Time from a call's arrival to its answer; none for Deq and Pipe, whose streams wait.",
            ["method"],
            buckets=CALL_BUCKETS,
            registry=self.registry,
        )
        self._calls = Counter(
            "stiqueue_calls", "Calls that have ended, by gRPC status code.", ["method", "code"], registry=self.registry
        )
        for method in METHODS:
            for code in CODES:
                self._calls.labels(method, code)
        self._commit_seconds = Histogram(
            "stiqueue_commit_seconds",
            "Time to write and sync one transaction of the data file.",
            buckets=COMMIT_BUCKETS,
            registry=self.registry,
        )
        self._commit_changes = Histogram(
            "stiqueue_commit_changes",
            "Requests that shared one transaction.",
            buckets=CHANGE_BUCKETS,
            registry=self.registry,
        )

    def called(self, method: str, code: str, seconds: float) -> None:
        """Count a call that has ended."""
        self._calls.labels(method, code).inc()
        if method not in STREAMS:
            self._seconds.labels(method).observe(seconds)

    def committed(self, changes: int, seconds: float) -> None:
        """Count a transaction that was written."""
        self._commit_seconds.observe(seconds)
        self._commit_changes.observe(changes)

    def watch(self, counts: Callable[[], list[Counts]]) -> None:
        """Add the result of `counts` to each scrape. `counts` is called on threads of the HTTP server."""
        self.registry.register(_Queues(counts))

    def watch_connections(self, connections: Callable[[], int | None], most: int) -> None:
        """Add the result of `connections` to each scrape, unless it is None, and the limit of connections."""
        Gauge("stiqueue_max_connections", "Connections that there may be.", registry=self.registry).set(most)
        self.registry.register(_Connections(connections))

    def serve(self, host: str, port: int) -> MetricsPort:
        """Answer ``GET /metrics`` at `host` and `port`.

        Raises:
            OSError: the address cannot be listened on.
        """
        return MetricsPort(self.registry, host, port)


class MetricsPort:
    """The HTTP server, in a thread of its own."""

    def __init__(self, registry: CollectorRegistry, host: str, port: int, option: str = "metrics_port") -> None:
        """Listen; an error names the `option` that asked for it.

        Raises:
            OSError: the address cannot be listened on.
        """
        try:
            self._server, thread = start_http_server(port, host, registry)
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port} ({option}): {error.strerror or error}") from error
        self._thread: threading.Thread = thread
        self._thread.name = "stiqueue-metrics"
        self.port = int(self._server.server_address[1])

    def close(self) -> None:
        """Stop answering."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(JOIN_SECONDS)


class _Queues(Collector):
    """The counts of every queue, read at each scrape."""

    def __init__(self, counts: Callable[[], list[Counts]]) -> None:
        self._counts = counts

    def describe(self) -> Iterable[Metric]:
        """Describe no metrics, so that registering does not ask for counts."""
        return []

    def collect(self) -> Iterator[Metric]:
        yield InfoMetricFamily("stiqueue", "The server.", {"version": __version__})
        gauges: list[tuple[str, str, Callable[[Counts], float]]] = [
            ("bytes", "Bytes of bodies and headers in the queue.", lambda each: each.bytes),
            ("blocked", "Ready messages that wait for another of their key.", lambda each: each.blocked),
            ("consumers", "Open Deq streams.", lambda each: each.consumers),
            ("paused", "1 if the queue is paused, else 0.", lambda each: each.paused),
            ("oldest_ready_age_seconds", "Since when the oldest ready message waits.", _ready_age),
            ("oldest_lease_age_seconds", "Since when the oldest leased message is held.", _lease_age),
        ]
        messages = GaugeMetricFamily("stiqueue_queue_messages", "Messages in the queue.", labels=["queue", "state"])
        totals = CounterMetricFamily(
            "stiqueue_queue_events", "What happened to messages since the server started.", labels=["queue", "event"]
        )
        families: list[Any] = [
            GaugeMetricFamily(f"stiqueue_queue_{name}", text, labels=["queue"]) for name, text, _ in gauges
        ]
        for each in self._counts():
            for state in ("ready", "leased", "delayed"):
                messages.add_metric([each.queue, state], getattr(each, state))
            for event in ("enqueued", "acked", "requeued", "expired", "dead_lettered"):
                totals.add_metric([each.queue, event], getattr(each, event))
            for family, (_, _, value) in zip(families, gauges, strict=True):
                family.add_metric([each.queue], value(each))
        yield from (messages, totals, *families)


class _Connections(Collector):
    """The number of connections, counted at each scrape."""

    def __init__(self, connections: Callable[[], int | None]) -> None:
        self._connections = connections

    def collect(self) -> Iterator[Metric]:
        found = self._connections()
        if found is not None:
            yield GaugeMetricFamily("stiqueue_connections", "Open connections.", found)


def _ready_age(each: Counts) -> float:
    return each.oldest_ready_age_ms / 1000


def _lease_age(each: Counts) -> float:
    return each.oldest_lease_age_ms / 1000
