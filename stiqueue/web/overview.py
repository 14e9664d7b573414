"""The rows of the overview: which queues, in which order, with what each one's numbers say."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from stiqueue.limits import suffixed
from stiqueue.message import DEAD_SUFFIX
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.alerts import RANKS, Alert
from stiqueue.web.history import History, Rates, Trend

SHOWN = 100
"""How many rows a page shows at first."""
MOST_SHOWN = 1_000


@dataclass
class Row:
    """One queue, its dead letters included."""

    counts: pb.QueueCounts
    dead: int
    trend: Trend
    alerts: list[Alert] = field(default_factory=list)

    @property
    def queue(self) -> str:
        """Its name."""
        return self.counts.queue

    @property
    def rates(self) -> Rates:
        """Messages a second."""
        return self.trend.rates

    @property
    def severity(self) -> str:
        """The gravest of its alerts; empty without one."""
        return max((alert.severity for alert in self.alerts if alert.is_firing), key=RANKS.__getitem__, default="")


def _trouble(row: Row) -> tuple[Any, ...]:
    """Sort what needs a person first. Ages count by their order of magnitude, so that rows keep their places."""
    c = row.counts
    ages = (math.log2(1 + c.oldest_ready_age_ms // 1000), math.log2(1 + c.oldest_lease_age_ms // 1000))
    return (
        -RANKS.get(row.severity, 0),
        -bool(c.paused),
        -bool(row.dead),
        -bool(row.alerts),
        -max(map(int, ages)),
        -bool(c.ready or c.leased),
        row.queue,
    )


def _by(read: Callable[[Row], float]) -> Callable[[Row], tuple[Any, ...]]:
    return lambda row: (-read(row), row.queue)


ORDERS: dict[str, Callable[[Row], tuple[Any, ...]]] = {
    "trouble": _trouble,
    "name": lambda row: (row.queue,),
    "ready": _by(lambda row: row.counts.ready),
    "leased": _by(lambda row: row.counts.leased),
    "delayed": _by(lambda row: row.counts.delayed),
    "dead": _by(lambda row: row.dead),
    "consumers": _by(lambda row: row.counts.consumers),
    "in": _by(lambda row: row.rates.enqueued),
    "acked": _by(lambda row: row.rates.acked),
    "back": _by(lambda row: row.rates.requeued),
    "oldest": _by(lambda row: row.counts.oldest_ready_age_ms),
    "held": _by(lambda row: row.counts.oldest_lease_age_ms),
    "size": _by(lambda row: row.counts.bytes),
}
"""How rows can be sorted, by the name of the column."""


@dataclass
class Overview:
    """What the overview shows."""

    rows: list[Row]
    """Those that are shown."""
    found: int
    """How many fit the filter."""
    queues: int
    ready: int
    leased: int
    delayed: int
    dead: int
    rates: Rates


def overview(
    counts: dict[str, pb.QueueCounts],
    history: History,
    alerts: Iterable[Alert],
    wanted: str = "",
    order: str = "trouble",
    shown: int = SHOWN,
) -> Overview:
    """Return the rows of the queues whose names contain `wanted`, sorted by `order`; the first `shown` of them.

    The queue of dead letters is part of the row of the queue it belongs to, unless the filter asks for it.
    """
    by_queue: dict[str, list[Alert]] = {}
    for alert in alerts:
        by_queue.setdefault(alert.queue, []).append(alert)
    rows: dict[str, Row] = {}
    for name, each in counts.items():
        if not _is_dead(name):
            dead = counts.get(suffixed(name, DEAD_SUFFIX))
            rows[name] = Row(each, _messages(dead), history.trend(name), by_queue.get(name, []))
    for name, each in counts.items():
        origin = name.removesuffix(DEAD_SUFFIX)
        if _is_dead(name) and origin not in rows:
            # Only its dead letters are left.
            rows[origin] = Row(pb.QueueCounts(queue=origin), _messages(each), Trend(), by_queue.get(origin, []))
    needle = wanted.lower()
    found = [row for row in rows.values() if needle in row.queue.lower()]
    if needle and "." in needle:
        found += [
            Row(each, 0, history.trend(name), by_queue.get(name, []))
            for name, each in counts.items()
            if _is_dead(name) and needle in name.lower() and needle not in name.removesuffix(DEAD_SUFFIX).lower()
        ]
    found.sort(key=ORDERS.get(order, _trouble))
    totals = [history.trend(name).rates for name in counts]
    return Overview(
        rows=found[:shown],
        found=len(found),
        queues=len(rows),
        ready=sum(row.counts.ready for row in rows.values()),
        leased=sum(row.counts.leased for row in rows.values()),
        delayed=sum(row.counts.delayed for row in rows.values()),
        dead=sum(row.dead for row in rows.values()),
        rates=Rates(*(sum(part) for part in zip(*totals, strict=True))) if totals else Rates(),
    )


def _is_dead(name: str) -> bool:
    return name.endswith(DEAD_SUFFIX) and name != DEAD_SUFFIX


def _messages(counts: pb.QueueCounts | None) -> int:
    return 0 if counts is None else counts.ready + counts.leased + counts.delayed
