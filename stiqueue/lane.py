"""The ready messages of one priority. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from stiqueue.entry import Entry
from stiqueue.run import Run

LEAST_MESSAGES, LEAST_BYTES = 1_000, 1 << 20
"""What is kept of a lane in memory however many queues there are."""


LOOK_MESSAGES = 1_000
"""How many messages of a run are made at a time for somebody who looks."""


class Lane:
    """The ready messages of one priority, in the order of their ids.

    `fresh` are those that came in order; `returned` (a heap) are those that came back or fell due, at their old place.
    Behind `fresh` there may be a backlog that only the journal has: `stored` messages, all with ids above `edge`.
    """

    __slots__ = ("bytes", "edge", "fresh", "loading", "messages", "returned", "stored")

    def __init__(self) -> None:
        self.fresh: deque[Run] = deque()
        """None of them is empty."""
        self.messages = 0
        """How many `fresh` has."""
        self.bytes = 0
        """Of their bodies and headers."""
        self.returned: list[Entry] = []
        self.stored = 0
        self.edge = 0
        self.loading = False
        """Whether the journal was asked for more."""

    def __len__(self) -> int:
        return self.messages + len(self.returned) + self.stored

    def append(self, run: Run, size: int) -> None:
        """Put new messages of `size` bytes behind all others in memory."""
        self.fresh.append(run)
        self.messages += len(run)
        self.bytes += size

    def head(self) -> Entry | None:
        """Return the next message; None when there is none, or when it must be loaded first."""
        fresh, returned = self.fresh, self.returned
        if returned:
            first = returned[0]
            if first.id < fresh[0].first_id if fresh else not self.stored or first.id < self.edge:
                return first
        return fresh[0].head() if fresh else None

    def pop(self, head: Entry) -> None:
        """Remove `head`, which `head()` just returned."""
        if self.returned and self.returned[0] is head:
            heapq.heappop(self.returned)
        else:
            self.take(1, head.size)

    def take(self, most: int, room: int) -> tuple[list[Entry], int]:
        """Remove the next of `fresh`, up to `most` and up to `room` bytes of them; return them and their bytes."""
        taken: list[Entry] = []
        size = 0
        while self.fresh and len(taken) < most:
            run = self.fresh[0]
            entries, used = run.take(most - len(taken), room - size)
            taken += entries
            size += used
            if run:
                break
            self.fresh.popleft()
        self.messages -= len(taken)
        self.bytes -= size
        return taken, size

    def after(self, message_id: int) -> Iterator[Entry]:
        """Iterate over those in memory with greater ids, in order."""
        low, high = 0, len(self.fresh)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.fresh[middle].last_id <= message_id else (low, middle)
        back = sorted(entry for entry in self.returned if entry.id > message_id)
        return heapq.merge(back, self._fresh_after(message_id, low))

    def _fresh_after(self, message_id: int, number: int) -> Iterator[Entry]:
        """Iterate over those of `fresh` with greater ids, the first of which is in the run of that number."""
        for run in islice(self.fresh, number, None):
            for start in range(max(0, message_id + 1 - run.first_id), len(run), LOOK_MESSAGES):
                yield from run.entries(start, LOOK_MESSAGES)


@dataclass(slots=True)
class Window:
    """How much of a lane is kept in memory when there is a journal that has the rest."""

    messages: int = 400_000
    """In memory 60 MB of 100 bytes each, twice or thrice as much if each came alone; reading one back costs 2 us."""
    bytes: int = 64 << 20

    def divide(self, whole: Window, queues: int) -> None:
        """Be the share of one of so many queues; a single one has no more than `whole`, all have twice as much."""
        share = max(2, queues)
        self.messages = max(min(LEAST_MESSAGES, whole.messages), 2 * whole.messages // share)
        self.bytes = max(min(LEAST_BYTES, whole.bytes), 2 * whole.bytes // share)

    def is_full(self, lane: Lane) -> bool:
        """Whether further messages are left to the journal."""
        return lane.messages >= self.messages or lane.bytes >= self.bytes

    def is_low(self, lane: Lane) -> bool:
        """Whether the journal is to be asked for more."""
        return lane.messages < self.messages // 2 and lane.bytes < self.bytes // 2
