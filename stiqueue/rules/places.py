"""The order of the strands that are free. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from stiqueue.rules.strand import Place, Strand

_SLACK = 64
"""Outdated places that are tolerated, however few others there are."""
_SORT_SHARE = 4
"""If at least one in so many places comes or goes at once, sorting all of them takes less time than a heap does."""


class Places:
    """The places of the free strands, in a heap. A strand that has moved on leaves an outdated place behind.

    A sorted list is a heap as well, and sorting one that nearly is sorted takes a fifth of the time of a heap: so a
    thousand strands that are taken and come back together cost little each.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._heap: list[Place] = []
        self._outdated = 0

    def put(self, place: Place) -> None:
        """Let a strand stand at `place`, and nowhere else."""
        self.forget(place[2])
        place[2].place = place
        heapq.heappush(self._heap, place)

    def put_all(self, places: Sequence[Place]) -> None:
        """Let strands that stand nowhere stand at `places`."""
        for place in places:
            place[2].place = place
        if len(places) * _SORT_SHARE >= len(self._heap):
            self._heap += places
            self._heap.sort()
        else:
            for place in places:
                heapq.heappush(self._heap, place)

    def forget(self, strand: Strand) -> None:
        """Let a strand stand nowhere."""
        if strand.place is None:
            return
        strand.place = None
        self._outdated += 1
        if self._outdated > len(self._heap) // 2 + _SLACK:
            self._heap = [place for place in self._heap if place[2].place is place]
            heapq.heapify(self._heap)
            self._outdated = 0

    def first(self) -> Place | None:
        """Return the first place; None: there is none."""
        heap = self._heap
        while heap:
            place = heap[0]
            if place[2].place is place:
                return place
            heapq.heappop(heap)
            self._outdated -= 1
        return None

    def take(self, most: int) -> list[Place]:
        """Remove and return the first places, up to `most` of them."""
        if most > 1 and most * _SORT_SHARE >= len(self._heap):
            self._heap.sort()
            places = [place for place in self._heap if place[2].place is place]
            taken, self._heap = places[:most], places[most:]
            self._outdated = 0
        else:
            taken = []
            while len(taken) < most and self.first() is not None:
                taken.append(heapq.heappop(self._heap))
        for place in taken:
            place[2].place = None
        return taken
