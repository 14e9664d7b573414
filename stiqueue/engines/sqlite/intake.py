"""Changes that wait to be written, and the size of transactions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from stiqueue.engines.local.change import Change, Remove

MOST_CHANGES = 5_000
"""The most changes in one transaction, so that the first of them does not wait long."""
MOST_BYTES = 2 << 20
"""The most bytes of new messages in one transaction of several changes: it bounds the write-ahead log."""
PART_ROWS = 200
"""The messages removed or updated in one transaction while the disk is full."""


class Intake:
    """Changes in the order of their arrival. Not thread-safe: used by the journal's thread."""

    def __init__(self) -> None:
        """Start empty."""
        self._changes: deque[Change] = deque()

    def __bool__(self) -> bool:
        """Whether changes wait."""
        return bool(self._changes)

    def add(self, changes: Iterable[Change]) -> None:
        """Add the changes that came last."""
        self._changes += changes

    def put_back(self, changes: list[Change]) -> None:
        """Put back changes that were taken and could not be written."""
        self._changes.extendleft(reversed(changes))

    @property
    def next_bytes(self) -> int:
        """Bytes of new messages in the next change."""
        return self._changes[0].size if self._changes else 0

    def take(self, most_bytes: int = MOST_BYTES) -> list[Change]:
        """Take one transaction: up to `most_bytes` of new messages, or a single change."""
        changes = self._changes
        if len(changes) == 1:
            return [changes.popleft()]
        taken: list[Change] = []
        size = 0
        while changes and len(taken) < MOST_CHANGES:
            size += changes[0].size
            if taken and size > most_bytes:
                break
            taken.append(changes.popleft())
        return taken

    def take_part(self) -> list[Change]:
        """Take changes that remove or update about PART_ROWS messages."""
        taken: list[Change] = []
        rows = 0
        while self._changes and rows < PART_ROWS:
            taken.append(self._changes.popleft())
            rows += sum(len(each.entries) for each in taken[-1].removes) + len(taken[-1].updates)
        return taken

    def divide(self) -> None:
        """Divide large changes that need not be written as a whole, for `take_part`."""
        self._changes = deque(part for change in self._changes for part in _parts(change))

    def take_new(self) -> list[Change]:
        """Take all changes that only insert messages."""
        new = [change for change in self._changes if change.inserts and not change.removes]
        self._changes = deque(change for change in self._changes if not change.inserts or change.removes)
        return new

    def take_all(self) -> list[Change]:
        """Take everything."""
        changes = list(self._changes)
        self._changes.clear()
        return changes


def _parts(change: Change) -> Iterator[Change]:
    """Divide a change without new messages; its last part has the callbacks."""
    if not change.inserts:
        removes = [
            Change(removes=[Remove(remove.queue, remove.entries[start : start + PART_ROWS])])
            for remove in change.removes
            for start in range(0, len(remove.entries), PART_ROWS)
        ]
        updates = [
            Change(updates=change.updates[start : start + PART_ROWS])
            for start in range(0, len(change.updates), PART_ROWS)
        ]
        *parts, last = [*removes, *updates] or [Change()]
        yield from parts
        change.removes, change.updates = last.removes, last.updates
    yield change
