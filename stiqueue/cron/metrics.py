"""The figures of a runner, served to Prometheus on a port of its own. Needs the extra ``metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stiqueue.cron.schedule import Schedule
from stiqueue.server.metrics import MetricsPort


def serve(schedule: Schedule, host: str, port: int) -> MetricsPort:
    """Answer ``GET /metrics`` for `schedule`.

    Raises:
        OSError: the address cannot be listened on.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(_Runs(schedule))
    return MetricsPort(registry, host, port, "--metrics-port")


class _Runs(Collector):
    """The figures of each entry, looked up when somebody asks for them."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule

    def describe(self) -> Iterable[Metric]:
        """Name nothing beforehand."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Return the figures of now."""
        mistakes = GaugeMetricFamily("stiqueue_cron_file_has_mistakes", "1: the file has changed and was not taken.")
        mistakes.add_metric([], float(self._schedule.has_mistakes))
        yield mistakes
        labels = ["entry"]
        runs = CounterMetricFamily("stiqueue_cron_runs", "Runs enqueued, or found enqueued by others.", labels=labels)
        left_out = CounterMetricFamily(
            "stiqueue_cron_left_out", "Missed runs that were not made up for.", labels=labels
        )
        failures = CounterMetricFamily("stiqueue_cron_failures", "Tries to enqueue a run that failed.", labels=labels)
        last = GaugeMetricFamily("stiqueue_cron_last_run_timestamp_seconds", "The last run enqueued.", labels=labels)
        next_ = GaugeMetricFamily("stiqueue_cron_next_run_timestamp_seconds", "The next run.", labels=labels)
        for each in self._schedule.status():
            runs.add_metric([each.name], each.runs)
            left_out.add_metric([each.name], each.left_out)
            failures.add_metric([each.name], each.failures)
            if each.last_run is not None:
                last.add_metric([each.name], each.last_run)
            if each.next_run is not None:
                next_.add_metric([each.name], each.next_run)
        yield from (runs, left_out, failures, last, next_)
