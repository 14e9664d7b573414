"""The ready messages of one key. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq

from stiqueue.rules.entry import Entry
from stiqueue.rules.run import Run, take_out

Place = tuple[int, int, "Strand"]
"""Where the next message of a strand stands among all: the negative of its priority, its id or one below it."""


class Stored:
    """Messages of one key and priority that only the journal has: `messages`, all with ids above `edge`."""

    __slots__ = ("adopted", "edge", "loading", "messages")

    def __init__(self, messages: int, edge: int) -> None:
        self.messages = messages
        self.edge = edge
        self.adopted: set[int] = set()
        """Messages with ids above `edge` that are no longer `stored`, although the journal may still have them."""
        self.loading = False
        """Whether the journal was asked for more."""

    def count_read(self, runs: list[Run]) -> int:
        """Count the next messages as read; remove those already adopted from `runs`; return how many are left."""
        self.loading = False
        if runs:
            self.edge = runs[-1].last_id
        take_out(self.adopted, self.edge, runs)
        number = sum(map(len, runs))
        self.messages -= number
        return number

    def adopt(self, message_id: int) -> bool:
        """Count a message as read alone; return False if it is not one of these."""
        if message_id <= self.edge or message_id in self.adopted:
            return False
        self.messages -= 1
        self.adopted.add(message_id)
        return True


class Strand:
    """The ready messages of one key, by priority and id. A queue may have 100,000 strands."""

    __slots__ = ("bytes", "expired", "held", "key", "place", "rank", "run", "runs", "stored", "waiting")

    def __init__(self, key: str) -> None:
        self.key = key
        self.held = 0
        """How many of its messages hold up the others: those that are leased, or were given back with a delay."""
        self.run: Run | None = None
        """Its first messages in memory; not empty."""
        self.rank = 0
        """The negative of their priority."""
        self.runs: list[tuple[int, int, Run]] = []
        """The others: a heap of (-priority, first id, messages), none of which is empty or has ids among those of
        another."""
        self.waiting = 0
        """How many messages it has, in memory or stored, without expired ones."""
        self.bytes = 0
        """Bodies and headers of the messages in memory."""
        self.expired = 0
        """How many messages in memory have expired and are to be skipped."""
        self.stored: dict[int, Stored] | None = None
        """By priority."""
        self.place: Place | None = None
        """Where it stands among all strands; None while it is held up or has no messages."""

    def __lt__(self, other: Strand) -> bool:
        """Strands are compared only when they stand at the same place, of which one is outdated."""
        return False

    @property
    def in_memory(self) -> int:
        """How many messages are in memory, expired ones included."""
        stored = sum(each.messages for each in self.stored.values()) if self.stored else 0
        return self.waiting + self.expired - stored

    def stored_of(self, priority: int) -> Stored | None:
        """Return what only the journal has of a priority; None: nothing."""
        return self.stored.get(priority) if self.stored else None

    def store(self, priority: int, messages: int, edge: int) -> Stored:
        """Count messages that only the journal has."""
        self.stored = self.stored or {}
        stored = self.stored[priority] = Stored(messages, edge)
        return stored

    def drop_empty(self, priority: int) -> None:
        """Forget what is stored of a priority if that is nothing, and nothing is being read."""
        stored = self.stored_of(priority)
        if self.stored and stored is not None and not (stored.messages or stored.loading):
            del self.stored[priority]

    def add(self, run: Run, size: int) -> None:
        """Put messages of `size` bytes at their place."""
        self.bytes += size
        rank = -run.properties.priority
        first = self.run
        if first is None:
            self.rank, self.run = rank, run
        elif (rank, run.first_id) < (self.rank, first.first_id):
            heapq.heappush(self.runs, (self.rank, first.first_id, first))
            self.rank, self.run = rank, run
        else:
            heapq.heappush(self.runs, (rank, run.first_id, run))

    def next_run(self) -> None:
        """Go on to the next messages in memory, because `run` is empty."""
        if self.runs:
            self.rank, _, self.run = heapq.heappop(self.runs)
        else:
            self.run = None

    def each_run(self) -> list[Run]:
        """Return all runs in memory, in no particular order."""
        return [] if self.run is None else [self.run, *(run for _, _, run in self.runs)]

    def next(self) -> Place | None:
        """Return where its next message stands; None when it has none."""
        place = None if self.run is None else (self.rank, self.run.first_id, self)
        for priority, stored in self.stored.items() if self.stored else ():
            other = (-priority, stored.edge + 1, self)
            if stored.messages and (place is None or other < place):
                place = other
        return place

    def waits_for_load(self) -> tuple[int, Stored] | None:
        """Return the priority and the stored messages of which the first is the next; None: it is in memory."""
        if not self.stored:
            return None
        place = self.next()
        if place is None or (self.run is not None and (self.rank, self.run.first_id) == place[:2]):
            return None
        return -place[0], self.stored[-place[0]]

    def remove(self, entry: Entry, rest: Run | None) -> None:
        """Arrange the runs again after a message was removed from one of them, and `rest` was split off."""
        runs = [run for run in self.each_run() if run]
        size, self.run, self.runs = self.bytes - entry.size, None, []
        for run in runs if rest is None else [*runs, rest]:
            self.add(run, 0)
        self.bytes = size
