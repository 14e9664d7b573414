"""The alerts of ``deploy/alerts.yaml`` that the counts of queues can tell, in the same words.

The others need metrics that only a server's ``--metrics-port`` has: restarts, defects, refused calls, slow disks.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from stiqueue.message import DEAD_SUFFIX
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.units import duration

RANKS = {"critical": 3, "warning": 2, "info": 1}
MARK_SECONDS = 60.0
"""How far apart the totals are remembered from which increases are told."""
WINDOW_SECONDS = 900.0

Totals = tuple[int, int, int, int]
"""Of one queue: dead-lettered, expired, requeued, acked."""


@dataclass(frozen=True)
class Rule:
    """One alert."""

    name: str
    severity: str
    seconds: float
    """How long the condition must have held (``for`` in the file)."""
    summary: Callable[[pb.QueueCounts], str]
    is_met: Callable[[pb.QueueCounts, Callable[[float], Totals]], bool]
    """Told the counts, and what gives the increases of the totals in a number of seconds."""


class Alert(NamedTuple):
    """An alert about one queue, or with an empty name about the server."""

    name: str
    severity: str
    queue: str
    summary: str
    is_firing: bool
    """False: the condition has not held for long enough yet."""
    held: float
    """For how many seconds the condition has held, as far as anybody has watched."""
    needed: float


def _is_dead(counts: pb.QueueCounts) -> bool:
    return counts.queue.endswith(DEAD_SUFFIX) and counts.queue != DEAD_SUFFIX


RULES = (
    Rule(
        "StiQueueMessagesWait",
        "warning",
        300,
        lambda c: f"the oldest message of {c.queue} has waited for {duration(c.oldest_ready_age_ms / 1000)}",
        lambda c, _: c.oldest_ready_age_ms > 600_000 and not _is_dead(c),
    ),
    Rule(
        "StiQueueNoConsumers",
        "warning",
        300,
        lambda c: f"{c.queue} has {c.ready} messages but no consumer",
        lambda c, _: c.ready > 0 and c.consumers == 0 and not _is_dead(c),
    ),
    Rule(
        "StiQueueLeaseHeldLong",
        "warning",
        0,
        lambda c: f"a message of {c.queue} has been held for {duration(c.oldest_lease_age_ms / 1000)}",
        lambda c, _: c.oldest_lease_age_ms > 3_600_000,
    ),
    Rule(
        "StiQueueDeadLetters",
        "warning",
        0,
        lambda c: f"messages of {c.queue} have become dead letters",
        lambda _, increase: increase(900)[0] > 0,
    ),
    Rule(
        "StiQueueGivenBack",
        "warning",
        600,
        lambda c: f"more messages of {c.queue} are given back than acked",
        lambda _, increase: increase(600)[2] > increase(600)[3],
    ),
    Rule(
        "StiQueueExpired",
        "info",
        0,
        lambda c: f"messages of {c.queue} were dropped because their ttl ran out",
        lambda _, increase: increase(900)[1] > 0,
    ),
)
"""Those about a queue."""

DOWN = ("StiQueueDown", "critical", 60.0)
"""The one about the server."""


class AlertBook:
    """Remembers since when conditions hold. For one event loop; fed with the counts of all queues."""

    def __init__(self) -> None:
        """Begin."""
        self._since: dict[tuple[str, str], float] = {}
        self._marks: deque[tuple[float, dict[str, Totals]]] = deque()
        self.began: float | None = None
        """Since when it has been fed without a longer break."""

    def read(self, counts: Iterable[pb.QueueCounts], now: float) -> list[Alert]:
        """Return the alerts, the gravest first."""
        counts = list(counts)
        totals = {c.queue: (c.dead_lettered, c.expired, c.requeued, c.acked) for c in counts}
        if self._marks and now - self._marks[-1][0] > 2 * MARK_SECONDS:  # nobody watched
            self._marks.clear()
            self._since.clear()
        if not self._marks:
            self.began = now
        if not self._marks or now - self._marks[-1][0] >= MARK_SECONDS:
            self._marks.append((now, totals))
        while now - self._marks[0][0] > WINDOW_SECONDS + MARK_SECONDS:
            self._marks.popleft()
        alerts, met = [], set()
        for c in counts:
            increase = self._increase(c.queue, totals[c.queue], now)
            for rule in RULES:
                if rule.is_met(c, increase):
                    met.add((rule.name, c.queue))
                    held = now - self._since.setdefault((rule.name, c.queue), now)
                    alerts.append(
                        Alert(
                            rule.name,
                            rule.severity,
                            c.queue,
                            rule.summary(c),
                            held >= rule.seconds,
                            held,
                            rule.seconds,
                        )
                    )
        for key in self._since.keys() - met:
            del self._since[key]
        return sorted(alerts, key=rank)

    def _increase(self, queue: str, totals: Totals, now: float) -> Callable[[float], Totals]:
        def increase(seconds: float) -> Totals:
            before: Mapping[str, Totals] = self._marks[0][1]
            for at, mark in self._marks:
                if now - at < seconds:
                    break
                before = mark
            old = before.get(queue, (0, 0, 0, 0))
            gained = [new - last if new >= last else new for new, last in zip(totals, old, strict=True)]
            return gained[0], gained[1], gained[2], gained[3]

        return increase


def rank(alert: Alert) -> tuple[bool, int, str, str]:
    """Return what sorts alerts: those that fire first, then by severity and name."""
    return not alert.is_firing, -RANKS[alert.severity], alert.name, alert.queue


def down(server: str, seconds: float) -> Alert:
    """Return the alert for a `server` that has not answered for some time."""
    name, severity, needed = DOWN
    return Alert(name, severity, "", f"{server} does not answer", seconds >= needed, seconds, needed)
