"""The ready messages of one priority. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from stiqueue.rules.entry import Entry
from stiqueue.rules.returned import Returned
from stiqueue.rules.run import Run, take_out

LEAST_MESSAGES, LEAST_BYTES = 1_000, 1 << 20
"""The least of a lane that stays in memory, however many queues there are."""


LOOK_MESSAGES = 1_000
"""How many entries of a run are made at a time for a peek."""


class Lane:
    """The ready messages of one priority, in the order of their ids.

    `fresh` are those that came in order; `returned` are those that came back or fell due, at their old place.
    Behind `fresh` there may be a backlog that only the journal has: `stored` messages, all with ids above `edge`.
    """

    __slots__ = ("adopted", "bytes", "edge", "fresh", "loading", "messages", "returned", "stored")

    def __init__(self) -> None:
        self.fresh: deque[Run] = deque()
        """The first is not empty."""
        self.messages = 0
        """The number of messages in `fresh`."""
        self.bytes = 0
        """Bytes of their bodies and headers."""
        self.returned = Returned()
        self.adopted: set[int] = set()
        """Messages with ids above `edge` that are no longer `stored`, although the journal may still have them."""
        self.stored = 0
        self.edge = 0
        self.loading = False
        """Whether a page is being read from the log."""

    def __len__(self) -> int:
        return self.messages + len(self.returned) + self.stored

    def append(self, run: Run, size: int) -> None:
        """Append new messages of `size` bytes."""
        self.fresh.append(run)
        self.messages += len(run)
        self.bytes += size

    def head(self) -> Entry | None:
        """Return the next message; None if there is none, or if it must be read from the log first."""
        fresh, returned = self.fresh, self.returned
        if returned:
            first = returned.first()
            if first.id < fresh[0].first_id if fresh else not self.stored or first.id < self.edge:
                return first
        return fresh[0].head() if fresh else None

    def pop(self, head: Entry) -> None:
        """Remove `head`, which `head()` just returned."""
        if self.returned and self.returned.first() is head:
            self.returned.remove(head.id)
        else:
            self.take(1, head.size)

    def take(self, most: int, room: int) -> tuple[list[Entry], int]:
        """Remove the first messages of `fresh`, up to `most` of them and `room` bytes; return them and their bytes."""
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
        while self.fresh and not self.fresh[0]:
            self.fresh.popleft()
        self.messages -= len(taken)
        self.bytes -= size
        return taken, size

    def get(self, message_id: int) -> Entry | None:
        """Return a message in memory by its id, or None."""
        entry = self.returned.get(message_id)
        if entry is not None:
            return entry
        number = self._number(message_id - 1)
        if number == len(self.fresh) or not (run := self.fresh[number]) or run.first_id > message_id:
            return None
        return run.get(message_id)

    def remove(self, message_id: int) -> None:
        """Remove a message that `get` returned."""
        if self.returned.remove(message_id) is not None:
            return
        number = self._number(message_id - 1)
        run = self.fresh[number]
        self.messages -= 1
        self.bytes -= run.get(message_id).size
        before = run.remove(message_id)
        if before is not None:
            self.fresh.insert(number, before)
        while self.fresh and not self.fresh[0]:
            self.fresh.popleft()

    def is_stored(self, message_id: int) -> bool:
        """Whether a message is in the log alone, if anywhere."""
        return self.stored > 0 and message_id > self.edge and message_id not in self.adopted

    def adopt(self, entry: Entry) -> None:
        """Put a stored message that was read alone at its place in memory."""
        self.stored -= 1
        self.adopted.add(entry.id)
        self.returned.push(entry)

    def load(self, runs: list[Run]) -> None:
        """Count the next stored messages as read; remove those already adopted from `runs`."""
        self.loading = False
        if runs:
            self.edge = runs[-1].last_id
        take_out(self.adopted, self.edge, runs)
        self.stored -= sum(map(len, runs))

    def remove_spent(self, attempts: int) -> list[Entry]:
        """Remove and return the messages in memory that had `attempts` deliveries or more."""
        spent = [entry for entry in self.returned if entry.attempt >= attempts]
        for entry in spent:
            self.returned.remove(entry.id)
        for run in [run for run in self.fresh if run.attempt >= attempts]:  # from a data file
            self.fresh.remove(run)
            self.messages -= len(run)
            self.bytes -= run.size
            spent += run.entries()
        while self.fresh and not self.fresh[0]:
            self.fresh.popleft()
        return spent

    def after(self, message_id: int) -> Iterator[Entry]:
        """Iterate in order over the messages in memory with greater ids."""
        back = sorted(entry for entry in self.returned if entry.id > message_id)
        return heapq.merge(back, self._fresh_after(message_id, self._number(message_id)))

    def _number(self, message_id: int) -> int:
        """Return the index of the first run of `fresh` with greater ids."""
        low, high = 0, len(self.fresh)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if self.fresh[middle].last_id <= message_id else (low, middle)
        return low

    def _fresh_after(self, message_id: int, number: int) -> Iterator[Entry]:
        """Iterate over the messages of `fresh` with greater ids, from the run at index `number`."""
        for run in islice(self.fresh, number, None):
            for start in range(max(0, message_id + 1 - run.first_id), len(run), LOOK_MESSAGES):
                yield from run.entries(start, LOOK_MESSAGES)


@dataclass(slots=True)
class Window:
    """How much of a lane stays in memory; the log has the rest."""

    messages: int = 400_000
    """60 MB of memory at 100 bytes each, two or three times as much if each came alone; reading one back takes 2 us."""
    bytes: int = 64 << 20

    def divide(self, whole: Window, queues: int) -> None:
        """Become the share of one of `queues` queues: a single one has `whole`, many together twice as much."""
        share = max(2, queues)
        self.messages = max(min(LEAST_MESSAGES, whole.messages), 2 * whole.messages // share)
        self.bytes = max(min(LEAST_BYTES, whole.bytes), 2 * whole.bytes // share)

    def is_full(self, lane: Lane) -> bool:
        """Whether further messages stay in the log."""
        return lane.messages >= self.messages or lane.bytes >= self.bytes

    def is_low(self, lane: Lane) -> bool:
        """Whether it is time to read a page from the log."""
        return lane.messages < self.messages // 2 and lane.bytes < self.bytes // 2
