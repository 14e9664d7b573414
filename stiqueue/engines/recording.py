"""What the journal is told of messages that it has: who was delivered, given back, expired or done.

Not thread-safe: guarded by the engine's lock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from stiqueue.engines.consumer import Queue, consumer_of
from stiqueue.engines.settling import Settled
from stiqueue.engines.writer import Change, Remove, Update
from stiqueue.entry import Entry
from stiqueue.lease import Lease, Owner


class Unrecorded:
    """Leases whose attempt is not in the journal yet; most are settled before it is worth a write."""

    def __init__(self) -> None:
        """Begin with none."""
        self._began: deque[tuple[float, Owner]] = deque()
        """When leases began, and whose; the oldest first. Not the leases: most are long gone."""

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._began)

    def add(self, leases: Sequence[Lease]) -> None:
        """Add new ones, at least one, of one owner, that began at the same time."""
        self._began.append((leases[0].since, leases[0].owner))

    def take(self, until: float) -> list[Update]:
        """Remove those that began `until` then; return what to record of those that are still held."""
        owners: dict[Owner, float] = {}
        """When the first of each one's began that is not recorded."""
        while self._began and self._began[0][0] <= until:
            since, owner = self._began.popleft()
            owners[owner] = min(since, owners.get(owner, since))  # whoever is first has not always looked first
        updates: list[Update] = []
        for owner, since in owners.items():
            queue = consumer_of(owner).queue
            for lease in reversed(owner.held.values()):  # there may be thousands that have long been recorded
                if lease.since < since:
                    break
                if lease.since <= until:
                    updates.append(_update(queue, lease.entry_after()))
        return updates


def removals(settled: Mapping[Queue, Settled]) -> list[Remove]:
    """Return what to remove when the messages of leases are done."""
    removes: list[Remove] = []
    for queue, done in settled.items():
        entries = [entry for _, entry, _, _ in done.leases]
        if queue.due_ms:
            for entry in entries:
                queue.due_ms.pop(entry.id, None)
        if len(queue.pending.lanes) == 1:  # as it usually is: a thousand at a time are not looked at one by one
            removes.append(Remove(queue.name, next(iter(queue.pending.lanes)), entries, done.size))
        else:
            removes += removed(queue.name, entries)
    return removes


def removed(queue: str, entries: Iterable[Entry]) -> list[Remove]:
    """Return what to remove when messages of a queue are done, whatever their priorities."""
    by_priority: dict[int, list[Entry]] = {}
    for entry in entries:
        by_priority.setdefault(entry.properties.priority, []).append(entry)
    return [Remove.of(queue, same) for same in by_priority.values()]


def expired(queue: Queue) -> Change | None:
    """Return what to write of messages that expired, or None when none has."""
    fallout = queue.pending.fallout
    if not fallout.expired:
        return None
    gone, fallout.expired = fallout.expired, []
    for entry in gone:
        queue.due_ms.pop(entry.id, None)
    return Change(removes=removed(queue.name, gone))


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
