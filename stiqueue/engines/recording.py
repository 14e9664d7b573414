"""What the journal is told of messages that it has: who was delivered, given back, expired or done.

Not thread-safe: guarded by the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import repeat

from stiqueue.engines.consumer import Queue
from stiqueue.engines.leasing import by_owner, consumer_of
from stiqueue.engines.writer import Change, Update
from stiqueue.entry import Entry
from stiqueue.lease import Lease


class Unrecorded:
    """Leases whose attempt is not in the journal yet; most are settled before it is worth a write."""

    def __init__(self, held: Mapping[str, Lease]) -> None:
        """Begin with none; `held` are the engine's leases by their ids."""
        self._held = held
        self._leases: deque[Lease] = deque()
        """The oldest first."""

    def __len__(self) -> int:
        return len(self._leases)

    def oldest(self) -> float | None:
        """Return since when the oldest lasts, or None when there is none."""
        return self._leases[0].since if self._leases else None

    def add(self, leases: Iterable[Lease]) -> None:
        """Add new ones."""
        self._leases.extend(leases)

    def take(self, until: float) -> list[Update]:
        """Remove those that began `until` then; return what to record of those that are still held."""
        updates = []
        while self._leases and self._leases[0].since <= until:
            lease = self._leases.popleft()
            if lease.lease_id in self._held:
                updates.append(_update(consumer_of(lease.owner).queue, lease.entry_after()))
        return updates


def removals(leases: Sequence[Lease]) -> list[tuple[str, Entry]]:
    """Return what to remove when the messages of `leases` are done."""
    removed: list[tuple[str, Entry]] = []
    for owner, owned in by_owner(leases):
        queue = consumer_of(owner).queue
        entries = [lease.entry for lease in owned]
        if queue.due_ms:
            for entry in entries:
                queue.due_ms.pop(entry.id, None)
        removed += zip(repeat(queue.pending.name), entries)
    return removed


def expired(queue: Queue) -> Change | None:
    """Return what to write of messages that expired, or None when none has."""
    fallout = queue.pending.fallout
    if not fallout.expired:
        return None
    gone, fallout.expired = fallout.expired, []
    for entry in gone:
        queue.due_ms.pop(entry.id, None)
    return Change(removes=[(queue.pending.name, entry) for entry in gone])


def returned(queue: Queue, wall_ms: float, now: float) -> Change | None:
    """Return what to write of messages that were given back, or None when none was."""
    fallout = queue.pending.fallout
    if not fallout.returned:
        return None
    back, fallout.returned = fallout.returned, []
    for entry, due in back:
        if due is not None:
            queue.due_ms[entry.id] = int(wall_ms + (due - now) * 1000)
    return Change(updates=[_update(queue, entry) for entry, _ in back])


def _update(queue: Queue, entry: Entry) -> Update:
    return Update(queue.pending.name, entry, queue.due_ms.get(entry.id), entry.properties.expires_ms)
