"""The leases of one queue. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import attrgetter

from stiqueue.rules.alarms import Alarms
from stiqueue.rules.entry import Entry
from stiqueue.rules.lease import Lease, Owner, new_lease_ids

_BY_ID = attrgetter("entry.id")


class InFlight:
    """The messages of one queue that are leased, and until when."""

    def __init__(self) -> None:
        """Start with none."""
        self._leases = 0
        self.holders: dict[Owner, None] = {}
        """The owners that hold leases; thousands of others may hold none."""
        self.deadlines: Alarms[str, Lease] = Alarms()
        """Leases with an ack timeout."""
        self.were_due: dict[int, float] = {}
        """The due times of delayed messages that are leased by id, for when nobody settles them."""

    def __len__(self) -> int:
        return self._leases

    def add(self, owner: Owner, entries: list[Entry], size: int, now: float) -> list[Lease]:
        """Lease messages of `size` bytes to `owner`."""
        lease_ids = new_lease_ids(len(entries))
        # tuple.__new__ instead of Lease, as for entries.
        columns = zip(lease_ids, entries, repeat(owner), repeat(now))
        leases: list[Lease] = list(map(tuple.__new__, repeat(Lease), columns))
        if leases:
            self.holders[owner] = None
            owner.held.update(zip(lease_ids, leases, strict=True))
            if owner.arrears.trial:
                owner.arrears.trial = False
            owner.bytes_left -= size
            self._leases += len(leases)
            if owner.ack_timeout:
                self.extend(leases, now + owner.ack_timeout)
        return leases

    def extend(self, leases: Iterable[Lease], deadline: float) -> None:
        """Let `leases` run out at `deadline`."""
        for lease in leases:
            self.deadlines.set(lease.lease_id, deadline, lease)

    def remove(self, owner: Owner, leases: Sequence[Lease]) -> int:
        """End `leases`, all of `owner`; return how many bytes their messages have."""
        held, size = owner.held, 0
        for lease_id, (_, body, _, properties), _, _ in leases:
            del held[lease_id]
            size += len(body) + properties.headers_bytes
        if not held:
            self.holders.pop(owner, None)
        owner.bytes_left += size
        self._leases -= len(leases)
        if self.were_due:
            for lease in leases:
                self.were_due.pop(lease.entry.id, None)
        if self.deadlines:
            for lease in leases:
                self.deadlines.cancel(lease.lease_id)
        return size

    def run_out(self, now: float) -> list[Lease]:
        """Return the leases whose deadline has passed, in the order of their messages. They have not ended yet."""
        return sorted(self.deadlines.pop_due(now), key=_BY_ID)

    def ids(self) -> set[int]:
        """Return the ids of all leased messages."""
        return {lease.entry.id for owner in self.holders for lease in owner.held.values()}
