"""What was counted in the last minutes: rates, and the lines that charts draw."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import NamedTuple

from stiqueue.v1 import queue_pb2 as pb

SAMPLES = 240
"""How many samples are kept; at one a second, four minutes."""
GAP_SECONDS = 30.0
"""After a longer time without a sample the lines begin again."""


class Rates(NamedTuple):
    """Messages a second since the sample before."""

    enqueued: float = 0.0
    acked: float = 0.0
    requeued: float = 0.0


class Trend:
    """The samples of one queue, the oldest first."""

    __slots__ = ("acked", "delayed", "enqueued", "leased", "ready", "requeued", "totals")

    def __init__(self) -> None:
        """Begin without samples."""
        self.totals: tuple[int, int, int] | None = None
        self.ready, self.leased, self.delayed = array("f"), array("f"), array("f")
        self.enqueued, self.acked, self.requeued = array("f"), array("f"), array("f")

    @property
    def rates(self) -> Rates:
        """The rates of the last sample."""
        return Rates(self.enqueued[-1], self.acked[-1], self.requeued[-1]) if self.enqueued else Rates()

    def add(self, counts: pb.QueueCounts | None, seconds: float) -> None:
        """Add a sample, `seconds` after the one before; `counts` is None where the queue is empty and unused."""
        totals = (0, 0, 0) if counts is None else (counts.enqueued, counts.acked, counts.requeued)
        rates: tuple[float, ...] = ()
        if self.totals is not None and seconds > 0:
            # A total that is smaller than before is one of a server, or of a queue, that began again.
            gained = [new - old if new >= old else new for new, old in zip(totals, self.totals, strict=True)]
            rates = tuple(each / seconds for each in gained)
        self.totals = totals
        depth = (0, 0, 0) if counts is None else (counts.ready, counts.leased, counts.delayed)
        for line, value in zip(self._lines(), (*depth, *rates), strict=False):  # the first sample has no rates
            line.append(value)
            if len(line) > SAMPLES:
                del line[0]

    def _lines(self) -> tuple[array[float], ...]:
        return self.ready, self.leased, self.delayed, self.enqueued, self.acked, self.requeued


class History:
    """The samples of all queues. For one event loop."""

    def __init__(self) -> None:
        """Begin without samples."""
        self.times = array("d")
        """When the samples were taken, in seconds of a monotonic clock."""
        self._trends: dict[str, Trend] = {}

    def trend(self, queue: str) -> Trend:
        """Return the samples of `queue`; none: an empty trend."""
        return self._trends.get(queue) or Trend()

    def add(self, counts: Iterable[pb.QueueCounts], now: float) -> None:
        """Add a sample of all queues; those that are missing are empty and unused."""
        seconds = now - self.times[-1] if self.times else 0.0
        if seconds > GAP_SECONDS:
            del self.times[:]
            self._trends.clear()
        self.times.append(now)
        if len(self.times) > SAMPLES:
            del self.times[0]
        found = {each.queue: each for each in counts}
        for name in found.keys() - self._trends.keys():
            self._trends[name] = trend = Trend()
            if len(self.times) > 1:
                trend.totals = (0, 0, 0)  # it was not there a moment ago
        for name, trend in list(self._trends.items()):
            trend.add(found.get(name), seconds)
            if name not in found and not any(trend.ready) and not any(trend.enqueued):
                del self._trends[name]

    @property
    def seconds(self) -> float:
        """How far back the samples reach."""
        return self.times[-1] - self.times[0] if self.times else 0.0
