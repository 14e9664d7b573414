"""What the journal is told of messages that it has: who was delivered, given back, expired or done.

Not thread-safe: guarded by the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence

from stiqueue.engines.consumer import Queue
from stiqueue.engines.leasing import by_owner, consumer_of
from stiqueue.engines.writer import Change, Remove, Update
from stiqueue.entry import Entry
from stiqueue.lease import Lease


class Unrecorded:
    """Leases whose attempt is not in the journal yet; most are settled before it is worth a write."""

    def __init__(self, held: Mapping[str, Lease]) -> None:
        """Begin with none; `held` are the engine's leases by their ids."""
        self._held = held
        self._began: deque[tuple[float, list[str]]] = deque()
        """When, and the ids of those that began then; the oldest first. Not the leases: most are long gone."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._began)

    def add(self, leases: Sequence[Lease]) -> None:
        """Add new ones, at least one, that began at the same time."""
        self._began.append((leases[0].since, [lease_id for lease_id, _, _, _ in leases]))

    def take(self, until: float) -> list[Update]:
        """Remove those that began `until` then; return what to record of those that are still held."""
        updates: list[Update] = []
        while self._began and self._began[0][0] <= until:
            _, lease_ids = self._began.popleft()
            lasting = [lease for lease in map(self._held.get, lease_ids) if lease is not None]
            updates += [_update(consumer_of(lease.owner).queue, lease.entry_after()) for lease in lasting]
        return updates


def removals(leases: Sequence[Lease]) -> list[Remove]:
    """Return what to remove when the messages of `leases` are done."""
    removed: list[Remove] = []
    for owner, owned in by_owner(leases):
        queue = consumer_of(owner).queue
        entries = [entry for _, entry, _, _ in owned]
        if queue.due_ms:
            for entry in entries:
                queue.due_ms.pop(entry.id, None)
        removed.append(Remove(queue.pending.name, entries))
    return removed


def expired(queue: Queue) -> Change | None:
    """Return what to write of messages that expired, or None when none has."""
    fallout = queue.pending.fallout
    if not fallout.expired:
        return None
    gone, fallout.expired = fallout.expired, []
    for entry in gone:
        queue.due_ms.pop(entry.id, None)
    return Change(removes=[Remove(queue.pending.name, gone)])


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
