"""The rules of one queue: which messages are ready and in which order, who holds them, what falls due.

Pure data: no lock, no clock, no waiting, no input or output. The engine that owns a `Backlog` guards it with its lock
and tells it the time. A message is in exactly one of these places:

    ready  --lease-->  leased  --ack-->  gone
      ^                  |
      |<----give back----|--delay-->  delayed --(due)--> ready
      |                  `--dead letter, or too many attempts-->  fallout.dead
      `--(ttl passes)-->  fallout.expired
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from stiqueue.rules.entry import Entry
from stiqueue.rules.fallout import Fallout
from stiqueue.rules.in_flight import InFlight
from stiqueue.rules.lane import Window
from stiqueue.rules.lease import Lease, Owner
from stiqueue.rules.tally import Tally
from stiqueue.rules.unheld import Unheld
from stiqueue.rules.uniques import Uniques


class Backlog:
    """The messages of one queue. Not thread-safe: guarded by its engine's lock; `now` is always monotonic seconds.

    Moves messages between those that nobody holds (`unheld`) and those that are leased (`in_flight`).
    """

    def __init__(self, name: str, window: Window | None = None) -> None:
        """Start empty.

        Args:
            name: the queue's name.
            window: how many fresh messages of a priority are kept in memory, the others being left to the journal;
                None: all of them.
        """
        self.name = name
        self.max_leased = 0
        """The most leased messages; 0: no limit."""
        self.paused = False
        """Whether nothing is leased."""
        self.resumes_at: float | None = None
        """When a pause ends by itself; None: never."""
        self.uniques = Uniques()
        self.tally = Tally()
        self.fallout = Fallout()
        self.unheld = Unheld(window, self.uniques, self.tally, self.fallout)
        self.in_flight = InFlight()
        self.ready = self.unheld.ready
        """Those of `unheld` that are not delayed."""
        self._alarms = (self.unheld.due, self.unheld.mortal, self.in_flight.deadlines)

    def __len__(self) -> int:
        return len(self.unheld) + len(self.in_flight)

    @property
    def delivers(self) -> bool:
        """Whether messages may be leased: the queue is not paused, and `max_leased` is not reached."""
        return not self.paused and (not self.max_leased or len(self.in_flight) < self.max_leased)

    def next_due(self) -> float | None:
        """Return when `tick` is due next or a pause ends; None: never."""
        earliest = self.resumes_at
        for alarms in self._alarms:
            if alarms and (when := alarms.next_at()) is not None and (earliest is None or when < earliest):
                earliest = when
        return earliest

    def tick(self, now: float) -> list[Lease]:
        """Do everything due at `now`; return the leases that ran out, whose messages are given back in order."""
        self.unheld.tick(now)
        ended = self.in_flight.run_out(now)
        owners = {lease.owner for lease in ended}
        begun = {lease.lease_id for owner in owners for lease in owner.begun()}
        unsent = {lease.lease_id for owner in owners for lease in owner.unsent()}
        for lease in ended:
            owner, has_begun = lease.owner, lease.lease_id in begun
            self._put_back(owner, [lease], now, None, [lease] if has_begun else (), is_settled=False)
            if lease.lease_id in unsent:
                owner.arrears.take_back_trial()
            else:
                owner.arrears.add(lease.lease_id, lease.entry.size, has_begun)
                owner.bytes_left -= lease.entry.size
        self.ready.skip_expired()
        return ended

    # -- leasing ------------------------------------------------------------------------------------------------------

    def lease(self, owner: Owner, limit: int, limit_bytes: int, now: float) -> list[Lease]:
        """Lease ready messages to `owner`, as many as its credit, `limit` and `limit_bytes` allow.

        A message that alone is above a limit in bytes is leased by itself. With `no_ack` the messages are gone at once
        and their leases have no id.
        """
        if not self.delivers:
            return []
        if self.max_leased:
            limit = min(limit, self.max_leased - len(self.in_flight))
        taken, size = self.unheld.take(owner, limit, limit_bytes, now)
        return self._record(owner, taken, size, now)

    def lease_exactly(self, owner: Owner, wanted: deque[int], limit: int, limit_bytes: int, now: float) -> list[Lease]:
        """Lease the first messages of `wanted`, ready or delayed, within the same limits; remove them from `wanted`.

        Ids of messages that are not in the queue, or leased, are removed as well. Stops at one that may only be in the
        journal, which `Unheld.adopt` takes in. Neither a pause nor `max_leased` matters.
        """
        taken: list[Entry] = []
        used = 0
        most = int(min(limit, owner.room(), owner.left))
        were_due: dict[int, float] = {}
        while wanted and len(taken) < most:
            entry = self.unheld.find(wanted[0])
            if entry is None and self.unheld.is_stored(wanted[0]):
                break
            if entry is not None:
                size = used + entry.size
                if taken and size > limit_bytes:
                    break
                if size > owner.bytes_left and (taken or owner.held or owner.arrears.is_strict):
                    break
                due = self.unheld.due.when(entry.id)
                if self.unheld.withdraw(entry, now):
                    if entry.properties.key and not owner.no_ack:
                        self.ready.strands.hold(entry.properties.key)
                    if due is not None:
                        were_due[entry.id] = due
                    taken.append(entry)
                    used = size
            wanted.popleft()
        self.ready.skip_expired()
        if not owner.no_ack:
            self.in_flight.were_due.update(were_due)
        return self._record(owner, taken, used, now)

    def leased_ids(self, ids: Iterable[int]) -> list[int]:
        """Return those of `ids` that are leased. Takes as long as there are leases, if there are such ids at all."""
        missing = [each for each in ids if self.unheld.find(each) is None]
        if not missing or not len(self.in_flight):
            return []
        leased = self.in_flight.ids()
        return [message_id for message_id in missing if message_id in leased]

    def _record(self, owner: Owner, taken: list[Entry], size: int, now: float) -> list[Lease]:
        """Record that `owner` was given messages of `size` bytes."""
        if self.uniques:
            for entry in taken:
                if entry.properties.unique_key:
                    (self.uniques.free if owner.no_ack else self.uniques.lease)(entry.id, entry.properties)
        owner.left -= len(taken)
        if owner.no_ack:
            self.tally.acked += len(taken)
            self.tally.bytes -= size
            return [Lease("", entry, owner, now) for entry in taken]
        return self.in_flight.add(owner, taken, size, now)

    # -- settling -----------------------------------------------------------------------------------------------------

    def ack(self, owner: Owner, leases: list[Lease]) -> int:
        """Remove the messages of `leases`, all of `owner`, because they are done. Return their bytes."""
        owner.forgive()
        size = self.in_flight.remove(owner, leases)
        if self.ready.strands:
            self.unheld.finish(leases)
        self.tally.bytes -= size
        self.tally.acked += len(leases)
        if self.uniques:
            for lease in leases:
                if lease.unique_key:
                    self.uniques.free(lease.id, lease.entry.properties)
        return size

    def give_back(
        self, owner: Owner, leases: list[Lease], now: float, due: float | None = None, untouched: bool = False
    ) -> None:
        """Return the messages of `leases`, all of `owner`, to their old places, ready at `due` (None: at once).

        Args:
            owner: who settles them so.
            leases: its leases.
            now: the time.
            due: when they are ready again; None: at once.
            untouched: nobody has begun them, so the delivery does not count as an attempt.
        """
        owner.forgive()
        self._put_back(owner, leases, now, due, () if untouched or owner.is_exact else leases)

    def release(self, owner: Owner, now: float, untouched: bool = False) -> None:
        """Give back all messages of `owner`, which has ended; `untouched`: its client had begun none of them."""
        begun = () if untouched else owner.begun()
        self._put_back(owner, list(owner.held.values()), now, None, begun, is_settled=False)

    def dead_letter(self, owner: Owner, leases: list[Lease], reason: str) -> None:
        """Remove the messages of `leases`, all of `owner`, to be moved to the dead letter queue."""
        owner.forgive()
        self.in_flight.remove(owner, leases)
        if self.ready.strands:
            self.unheld.release(leases)
        for lease in leases:
            self.unheld.drop_dead(lease.entry_after(), reason)

    def _put_back(
        self,
        owner: Owner,
        leases: Sequence[Lease],
        now: float,
        due: float | None,
        begun: Iterable[Lease],
        is_settled: bool = True,
    ) -> None:
        """Put messages back; the delivery of those of `begun` was an attempt."""
        attempts = {lease.lease_id for lease in begun}
        were_due = {} if is_settled or not self.in_flight.were_due else dict(self.in_flight.were_due)
        self.in_flight.remove(owner, leases)
        if self.ready.strands:
            self.unheld.release(leases)
        self.tally.requeued += len(leases)
        for lease in leases:
            entry = lease.entry_after() if lease.lease_id in attempts else lease.entry
            due = were_due.get(entry.id) if were_due else due
            # One that was never begun and is only moved, by its id, holds up nobody.
            holds = not owner.is_exact or entry.attempt > 0
            if self.unheld.put_back(entry, now, due if due is not None and due > now else None, holds):
                self.fallout.returned.append((entry, due))
