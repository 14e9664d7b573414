"""The ready messages of one priority. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, islice

from stiqueue.entry import Entry

LEAST_MESSAGES, LEAST_BYTES = 1_000, 1 << 20
"""What is kept of a lane in memory however many queues there are."""


class Lane:
    """The ready messages of one priority, in the order of their ids.

    `fresh` are those that came in order; `returned` (a heap) are those that came back or fell due, at their old place.
    Behind `fresh` there may be a backlog that only the journal has: `stored` messages, all with ids above `edge`.
    """

    __slots__ = ("bytes", "edge", "fresh", "loading", "returned", "stored")

    def __init__(self) -> None:
        self.fresh: deque[Entry] = deque()
        self.bytes = 0
        """Of the bodies and headers of `fresh`."""
        self.returned: list[Entry] = []
        self.stored = 0
        self.edge = 0
        self.loading = False
        """Whether the journal was asked for more."""

    def __len__(self) -> int:
        return len(self.fresh) + len(self.returned) + self.stored

    def head(self) -> Entry | None:
        """Return the next message; None when there is none, or when it must be loaded first."""
        fresh, returned = self.fresh, self.returned
        if returned and (returned[0] < fresh[0] if fresh else not self.stored or returned[0].id < self.edge):
            return returned[0]
        return fresh[0] if fresh else None

    def pop(self, head: Entry, size: int) -> None:
        """Remove `head`, which `head()` just returned and which has `size` bytes."""
        if self.fresh and self.fresh[0] is head:
            self.fresh.popleft()
            self.bytes -= size
        else:
            heapq.heappop(self.returned)

    def run(self, most: int, room: int) -> tuple[list[Entry], int]:
        """Remove the next messages, up to `most` and up to `room` bytes of them; return them and their bytes.

        The quick way for many, of a lane to which nothing came back.
        """
        # In few steps of C for all of them: this is done for each of a million messages a second.
        sizes = [len(body) + properties.headers_bytes for _, body, _, properties in islice(self.fresh, max(0, most))]
        if sum(sizes) > room:
            del sizes[bisect_right(list(accumulate(sizes)), room) :]
        size = sum(sizes)
        self.bytes -= size
        pop = self.fresh.popleft
        return [pop() for _ in sizes], size

    def after(self, message_id: int) -> Iterator[Entry]:
        """Iterate over those in memory with greater ids, in order."""
        low, high = 0, len(self.fresh)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.fresh[middle].id <= message_id else (low, middle)
        back = sorted(entry for entry in self.returned if entry.id > message_id)
        return heapq.merge(back, islice(self.fresh, low, None))


@dataclass(slots=True)
class Window:
    """How much of a lane is kept in memory when there is a journal that has the rest."""

    messages: int = 100_000
    bytes: int = 32 << 20

    def divide(self, whole: Window, queues: int) -> None:
        """Be the share of one of so many queues; a single one has no more than `whole`, all have twice as much."""
        share = max(2, queues)
        self.messages = max(min(LEAST_MESSAGES, whole.messages), 2 * whole.messages // share)
        self.bytes = max(min(LEAST_BYTES, whole.bytes), 2 * whole.bytes // share)

    def is_full(self, lane: Lane) -> bool:
        """Whether further messages are left to the journal."""
        return len(lane.fresh) >= self.messages or lane.bytes >= self.bytes

    def is_low(self, lane: Lane) -> bool:
        """Whether the journal is to be asked for more."""
        return len(lane.fresh) < self.messages // 2 and lane.bytes < self.bytes // 2
