"""Attempts that the log does not know yet. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections import deque

from stiqueue.engines.local.consumer import LocalConsumer
from stiqueue.rules.lease import Lease

RECORD_SECONDS = 0.5
"""How long a lease lasts before its attempt is written: most messages are acked by then, also on a busy machine."""
LOOK_SECONDS = 0.125
"""The shortest time between two looks at leases that have lasted that long."""


class Attempts:
    """The leases whose attempt is to be written if they last."""

    def __init__(self) -> None:
        """Start with none."""
        self._began: deque[tuple[float, LocalConsumer]] = deque()
        """When leases began, and their consumers, the oldest first. Not the leases: most are settled by then."""
        self._choosy: dict[LocalConsumer, set[str]] = {}
        """Consumers that work on fewer messages than they hold, with the leases whose attempt is written."""

    def __bool__(self) -> bool:
        return bool(self._began or self._choosy)

    def due(self, now: float) -> float | None:
        """Return when to call `take`; None: there are none."""
        if self._choosy:
            return now + LOOK_SECONDS
        return max(self._began[0][0] + RECORD_SECONDS, now + LOOK_SECONDS) if self._began else None

    def add(self, consumer: LocalConsumer, since: float) -> None:
        """Note that `consumer` was given messages at `since`."""
        if consumer.concurrency < consumer.prefetch:
            self.look_again(consumer)
        else:
            self._began.append((since, consumer))

    def look_again(self, consumer: LocalConsumer) -> None:
        """Note that `consumer`, which works on fewer messages than it holds, may have begun others."""
        self._choosy.setdefault(consumer, set())

    def take(self, until: float) -> list[tuple[LocalConsumer, Lease]]:
        """Remove the leases that began by `until`; return those of them that are still held."""
        first: dict[LocalConsumer, float] = {}
        """When the first lease of each consumer began that is not written."""
        while self._began and self._began[0][0] <= until:
            since, consumer = self._began.popleft()
            first[consumer] = min(since, first.get(consumer, since))  # two threads may add in the wrong order
        lasting: list[tuple[LocalConsumer, Lease]] = []
        for consumer, since in first.items():
            for lease in reversed(consumer.held.values()):  # thousands before these may have been written long ago
                if lease.since < since:
                    break
                if lease.since <= until:
                    lasting.append((consumer, lease))
        for consumer in list(self._choosy):
            lasting += [(consumer, lease) for lease in self._begun(consumer, until)]
        return lasting

    def _begun(self, consumer: LocalConsumer, until: float) -> list[Lease]:
        """Return what to write of the messages that a choosy consumer works on; forget it when that is all of them."""
        begun, written = consumer.first(consumer.places), self._choosy[consumer]
        new = [lease for lease in begun if lease.since <= until and lease.lease_id not in written]
        written.intersection_update([lease.lease_id for lease in begun])
        written.update(lease.lease_id for lease in new)
        if len(written) == len(begun):
            del self._choosy[consumer]
        return new
