"""Ready messages of one priority that came back or fell due. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from stiqueue.rules.entry import Entry


class Returned:
    """Messages in order of their ids; any of them can be removed."""

    __slots__ = ("_entries", "_heap")

    def __init__(self) -> None:
        """Start empty."""
        self._entries: dict[int, Entry] = {}
        self._heap: list[int] = []
        """Their ids, and stale ones of messages removed before they became the first."""

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        """Iterate over all, in no particular order."""
        return iter(self._entries.values())

    def push(self, entry: Entry) -> None:
        """Add a message."""
        self._entries[entry.id] = entry
        heapq.heappush(self._heap, entry.id)

    def first(self) -> Entry:
        """Return the message with the lowest id; there must be one."""
        while (entry := self._entries.get(self._heap[0])) is None:
            heapq.heappop(self._heap)
        return entry

    def get(self, message_id: int) -> Entry | None:
        """Return a message by its id, or None."""
        return self._entries.get(message_id)

    def remove(self, message_id: int) -> Entry | None:
        """Remove and return a message by its id, or None."""
        entry = self._entries.pop(message_id, None)
        if not self._entries:
            self._heap.clear()
        elif self._heap[0] == message_id:
            heapq.heappop(self._heap)
        return entry
