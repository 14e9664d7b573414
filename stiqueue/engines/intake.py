"""Changes that wait to be written, and how many of them go into one transaction."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from stiqueue.engines.writer import Change, Remove, Update
from stiqueue.errors import StiQueueError

MOST_CHANGES = 5_000
"""Most changes in one transaction, so that the first of them need not wait long."""
MOST_BYTES = 2 << 20
"""Most bytes of new messages in one transaction, unless it is a single change: it bounds the write-ahead log."""
PART_ROWS = 200
"""How many messages are removed or changed in one transaction while the disk is full."""


class Intake:
    """Changes in the order in which they came. Not thread-safe: used by the journal's thread."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._changes: deque[Change] = deque()
        self._updates: list[Update] = []

    def __bool__(self) -> bool:
        """Whether there is something to write."""
        return bool(self._changes or self._updates)

    def add(self, changes: Iterable[Change], updates: Iterable[Update]) -> None:
        """Add what came last, and updates that nobody waits for."""
        self._changes += changes
        self._updates += updates

    def put_back(self, changes: list[Change], updates: list[Update]) -> None:
        """Have again what was taken and could not be written."""
        self._changes.extendleft(reversed(changes))
        self._updates[:0] = updates

    def take(self) -> tuple[list[Change], list[Update]]:
        """Take as much as belongs into one transaction."""
        updates, self._updates = self._updates, []
        return list(self._next()), updates

    def _next(self) -> Iterator[Change]:
        changes = self._changes
        size = changes[0].size if changes else 0
        for _ in range(min(MOST_CHANGES, len(changes))):
            yield changes.popleft()
            if changes:
                size += changes[0].size
                if size > MOST_BYTES:
                    return

    def take_part(self) -> tuple[list[Change], list[Update]]:
        """Take about PART_ROWS messages to remove or to change."""
        taken: list[Change] = []
        rows = 0
        while self._changes and rows < PART_ROWS:
            taken.append(self._changes.popleft())
            rows += sum(len(each.entries) for each in taken[-1].removes) + len(taken[-1].updates)
        few = max(0, PART_ROWS - rows)
        updates, self._updates = self._updates[:few], self._updates[few:]
        return taken, updates

    def divide(self) -> None:
        """Divide what need not be written as a whole, so that `take_part` takes little."""
        self._changes = deque(part for change in self._changes for part in _parts(change))

    def refuse_new(self, error: StiQueueError) -> None:
        """Drop what only brings new messages, telling `error`."""
        new = [change for change in self._changes if change.inserts and not change.removes]
        self._changes = deque(change for change in self._changes if not change.inserts or change.removes)
        for change in new:
            if change.done:
                change.done(error)

    def refuse_all(self, error: StiQueueError) -> None:
        """Drop everything, telling `error`."""
        self._updates.clear()
        while self._changes:
            change = self._changes.popleft()
            if change.done:
                change.done(error)


def _parts(change: Change) -> Iterator[Change]:
    """Divide a change that is only acks; its last part is what is waited for."""
    if not change.inserts:
        parts = [
            Remove.of(remove.queue, remove.entries[start : start + PART_ROWS])
            for remove in change.removes
            for start in range(0, len(remove.entries), PART_ROWS)
        ]
        yield from (Change(removes=[part]) for part in parts[:-1])
        change.removes = parts[-1:]
    yield change
