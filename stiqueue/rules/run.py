"""Runs: messages that came together and are kept together. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, repeat

from stiqueue.rules.entry import Entry, Properties


class Run:
    """Messages with consecutive ids that differ only in their bodies: a batch, or the rest of one.

    A message in a run takes half the memory of an `Entry` and no work when it is enqueued; its entry is made when it
    leaves.
    """

    __slots__ = ("_back", "attempt", "first_id", "properties")

    def __init__(self, first_id: int, bodies: Sequence[bytes], properties: Properties, attempt: int = 0) -> None:
        """Keep `bodies` together; `first_id` is the id of the first."""
        self.first_id = first_id
        self.properties = properties
        self.attempt = attempt
        """Deliveries of each message so far."""
        self._back = list(bodies)
        """The bodies in reverse order, because a list is cheap to shorten at its end."""
        self._back.reverse()

    @classmethod
    def of(cls, entry: Entry) -> Run:
        """Return a run of a single message."""
        return cls(entry.id, [entry.body], entry.properties, entry.attempt)

    def __len__(self) -> int:
        return len(self._back)

    @property
    def last_id(self) -> int:
        """The id of its last message."""
        return self.first_id + len(self._back) - 1

    @property
    def ids(self) -> range:
        """All ids."""
        return range(self.first_id, self.first_id + len(self._back))

    @property
    def size(self) -> int:
        """Bytes of all bodies and headers."""
        return sum(map(len, self._back)) + self.properties.headers_bytes * len(self._back)

    @property
    def bodies(self) -> list[bytes]:
        """All bodies, in order."""
        return self._back[::-1]

    @property
    def head_size(self) -> int:
        """Bytes of body and headers of the first message."""
        return len(self._back[-1]) + self.properties.headers_bytes

    def head(self) -> Entry:
        """Return the first message."""
        return Entry(self.first_id, self._back[-1], self.attempt, self.properties)

    def entries(self, start: int = 0, most: int | None = None) -> list[Entry]:
        """Return up to `most` messages, starting at index `start`."""
        end = len(self._back) - start
        bodies = self._back[0 if most is None else max(0, end - most) : end]
        bodies.reverse()
        return self._entries(self.first_id + start, bodies)

    def get(self, message_id: int) -> Entry:
        """Return one of the messages."""
        body = self._back[self.last_id - message_id]
        return Entry(message_id, body, self.attempt, self.properties)

    def remove(self, message_id: int) -> Run | None:
        """Remove one of the messages, and those before it if others come after it; return these in a run of their own.

        Ids in a run are consecutive, so a run without one in the middle would not be one.
        """
        after = self.last_id - message_id
        before = self._back[after + 1 :]
        if not after or not before:
            self.first_id += not before
            del self._back[after]
            return None
        del self._back[after:]
        before.reverse()
        first, self.first_id = self.first_id, message_id + 1
        return Run(first, before, self.properties, self.attempt)

    def pop_head(self) -> Entry:
        """Remove the first message, and return it."""
        first = self.first_id
        self.first_id = first + 1
        return tuple.__new__(Entry, (first, self._back.pop(), self.attempt, self.properties))

    def take(self, most: int, room: int) -> tuple[list[Entry], int]:
        """Remove the first messages, up to `most` of them and `room` bytes; return them and their bytes."""
        each = self.properties.headers_bytes
        bodies = self._back[: -most - 1 : -1] if most < len(self._back) else self.bodies
        size = sum(map(len, bodies)) + each * len(bodies)
        if size > room:
            del bodies[bisect_right(list(accumulate(len(body) + each for body in bodies)), room) :]
            size = sum(map(len, bodies)) + each * len(bodies)
        del self._back[len(self._back) - len(bodies) :]
        first = self.first_id
        self.first_id += len(bodies)
        return self._entries(first, bodies), size

    def _entries(self, first: int, bodies: list[bytes]) -> list[Entry]:
        # tuple.__new__ takes half the time of Entry, which counts at a million messages a second.
        columns = zip(range(first, first + len(bodies)), bodies, repeat(self.attempt), repeat(self.properties))
        return list(map(tuple.__new__, repeat(Entry), columns))


def take_out(adopted: set[int], edge: int, runs: list[Run]) -> None:
    """Remove from `runs` the messages of `adopted` with ids up to `edge`, and these ids from `adopted`."""
    for message_id in sorted(adopted) if adopted else ():
        if message_id > edge:
            return
        adopted.discard(message_id)
        for at, run in enumerate(runs):
            if run and run.first_id <= message_id <= run.last_id:
                before = run.remove(message_id)
                if before is not None:
                    runs.insert(at, before)
                break
