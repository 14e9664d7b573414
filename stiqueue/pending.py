"""One queue's rules: what is ready and in which order, who holds what, what falls due.

Pure data: no lock, no clock, no waiting, no input or output. The engine that owns a `Pending` guards it with its lock
and tells it the time. A message is in exactly one of these places:

    ready  --lease-->  leased  --ack-->  gone
      ^                  |
      |<----give back----|--delay-->  delayed --(due)--> ready
      |                  `--dead letter, or too many attempts-->  fallout.dead
      `--(ttl passes)-->  fallout.expired
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, repeat
from operator import attrgetter

from stiqueue.alarms import Alarms
from stiqueue.entry import Entry
from stiqueue.lane import Lane, Window
from stiqueue.lease import Lease, Owner, new_lease_ids
from stiqueue.run import Run

MAX_ATTEMPTS_REASON = "max-attempts"
"""Why a message became a dead letter when it was delivered as often as is allowed."""

_BY_ID = attrgetter("entry.id")


@dataclass(slots=True)
class Fallout:
    """What left a queue by itself, for the engine to record and to carry on."""

    expired: list[Entry] = field(default_factory=list)
    dead: list[tuple[Entry, str]] = field(default_factory=list)
    """(message, reason) to move to the dead letter queue."""
    returned: list[tuple[Entry, float | None]] = field(default_factory=list)
    """(message, when it is ready or None) that were given back, so that this is to be recorded. They have not left."""

    def __bool__(self) -> bool:
        return bool(self.expired or self.dead or self.returned)


class Pending:
    """The messages of one queue. Not thread-safe: guarded by its engine's lock; `now` is always monotonic seconds."""

    def __init__(self, name: str, max_attempts: int = 0, window: Window | None = None) -> None:
        """Start empty.

        Args:
            name: the queue's name.
            max_attempts: deliveries before a message is a dead letter; 0: no limit.
            window: how many fresh messages of a priority are kept in memory, the others being left to the journal;
                None: all of them.
        """
        self.name = name
        self.max_attempts = max_attempts
        self.owners: dict[Owner, None] = {}
        self.holders: dict[Owner, None] = {}
        """Those that hold something; there may be thousands that do not."""
        self.bytes = 0
        self.leased = 0
        self.enqueued = self.acked = self.requeued = self.expired = self.dead_lettered = 0
        self.fallout = Fallout()
        self.window = window
        self.lanes: dict[int, Lane] = {}
        """By priority, the highest first."""
        self.due: Alarms[int, Entry] = Alarms()
        """Delayed messages."""
        self.deadlines: Alarms[str, Lease] = Alarms()
        """Leases with a time limit."""
        self._mortal: Alarms[int, Entry] = Alarms()
        """Ready and delayed messages that have a ttl."""
        self._gone: set[int] = set()
        """Ready messages that expired and are still in a lane, to be skipped."""

    # -- what there is ------------------------------------------------------------------------------------------------

    @property
    def ready(self) -> int:
        """How many messages can be delivered."""
        return sum(map(len, self.lanes.values())) - len(self._gone)

    @property
    def delayed(self) -> int:
        """How many messages wait for their delay to pass."""
        return len(self.due)

    def __len__(self) -> int:
        return self.ready + self.leased + self.delayed

    def has_head(self) -> bool:
        """Whether there is a ready message in memory, so that a consumer with credit that gets none lacks room."""
        first = next((lane for lane in self.lanes.values() if len(lane)), None)
        return first is not None and first.head() is not None

    def next_due(self) -> float | None:
        """Return when `tick` has something to do next, or None."""
        if not (self.due or self.deadlines or self._mortal):  # as with most queues
            return None
        times = (self.due.next_at(), self.deadlines.next_at(), self._mortal.next_at())
        return min((when for when in times if when is not None), default=None)

    # -- coming in ----------------------------------------------------------------------------------------------------

    def add(self, run: Run, size: int, due: float | None = None) -> None:
        """Take in new messages of `size` bytes with rising ids; they are ready at `due` (None: at once)."""
        properties = run.properties
        self.enqueued += len(run)
        self.bytes += size
        if due is None:
            lane = self._lane(properties.priority)
            if self.window is not None and (lane.stored or self.window.is_full(lane)):
                lane.stored += len(run)
                return
            lane.append(run, size)
            lane.edge = run.last_id
            if properties.expires_at is None:
                return
        for entry in run.entries():
            if due is not None:
                self.due.set(entry.id, due, entry)
            if properties.expires_at is not None:
                self._mortal.set(entry.id, properties.expires_at, entry)

    def restore(self, priority: int, stored: int, stored_bytes: int) -> None:
        """Know of messages that the journal has: those without a due time, none of which is in memory yet."""
        self._lane(priority).stored = stored
        self.bytes += stored_bytes

    def restore_delayed(self, entry: Entry, due: float, now: float) -> None:
        """Take back a message that the journal has with a due time, also one passed; its bytes are counted already."""
        if self._keeps(entry, now):
            self.due.set(entry.id, due, entry)

    def hungry(self) -> Iterator[tuple[int, Lane]]:
        """Iterate over the (priority, lane) for which the journal is to be asked for more."""
        for priority, lane in self.lanes.items():
            if lane.stored and not lane.loading and self.window is not None and self.window.is_low(lane):
                yield priority, lane

    def load(self, priority: int, runs: list[Run], now: float) -> None:
        """Take in what the journal was asked for: the next stored messages of a priority."""
        lane = self.lanes[priority]
        lane.loading = False
        lane.stored -= sum(map(len, runs))
        lane.edge = runs[-1].last_id
        for run in runs:
            if run.properties.expires_at is None and not (self.max_attempts and run.attempt >= self.max_attempts):
                lane.append(run, run.size)
            else:
                for entry in run.entries():
                    if self._keeps(entry, now):
                        lane.append(Run.of(entry), entry.size)

    def _keeps(self, entry: Entry, now: float) -> bool:
        """Whether a message that is not leased any more is for further deliveries: not expired, nor a dead letter."""
        expires_at = entry.properties.expires_at
        if expires_at is not None and expires_at <= now:
            self._drop_expired(entry)
            return False
        if self.max_attempts and entry.attempt >= self.max_attempts:
            self._drop_dead(entry, MAX_ATTEMPTS_REASON)
            return False
        if expires_at is not None:
            self._mortal.set(entry.id, expires_at, entry)
        return True

    def _lane(self, priority: int) -> Lane:
        lane = self.lanes.get(priority)
        if lane is None:
            lane = self.lanes[priority] = Lane()
            self.lanes = dict(sorted(self.lanes.items(), reverse=True))
        return lane

    # -- leasing ------------------------------------------------------------------------------------------------------

    def lease(self, owner: Owner, limit: int, limit_bytes: int, now: float) -> list[Lease]:
        """Lease ready messages to `owner`, as many as its credit, `limit` and `limit_bytes` allow.

        A message that alone is above a limit in bytes is leased by itself. With `no_ack` the messages are gone at once
        and their leases have no id.
        """
        taken: list[Entry] = []
        used = 0
        most = int(min(limit, owner.prefetch - len(owner.held), owner.left))
        for lane in self.lanes.values():
            if not lane.returned:
                entries, size = lane.take(most - len(taken), min(limit_bytes, owner.bytes_left) - used)
                if self._mortal or self._gone:
                    entries = [entry for entry in entries if not self._expire_if_due(entry, now)]
                    size = sum(entry.size for entry in entries)
                taken += entries
                used += size
            # What is left: messages that came back, or one that is too large for more than itself.
            while len(taken) < most:
                entry = lane.head()
                if entry is None:
                    break
                size = entry.size
                if used + size > limit_bytes and taken:
                    return self._leased(taken, used, owner, now)
                if used + size > owner.bytes_left and (taken or owner.held):
                    return self._leased(taken, used, owner, now)
                lane.pop(entry)
                if entry.properties.expires_at is not None and self._expire_if_due(entry, now):
                    continue
                used += size
                taken.append(entry)
            if len(taken) >= most or lane.stored:
                break
        return self._leased(taken, used, owner, now)

    def _leased(self, taken: list[Entry], size: int, owner: Owner, now: float) -> list[Lease]:
        """Record what `lease` took, which has `size` bytes, all in one step."""
        if self._gone:
            self._skip_gone()
        owner.left -= len(taken)
        if owner.no_ack:
            self.acked += len(taken)
            self.bytes -= size
            return [Lease("", entry, owner, now) for entry in taken]
        lease_ids = new_lease_ids(len(taken))
        # tuple.__new__ instead of Lease, as for entries.
        columns = zip(lease_ids, taken, repeat(owner), repeat(now))
        leases: list[Lease] = list(map(tuple.__new__, repeat(Lease), columns))
        if leases:
            self.holders[owner] = None
        owner.held.update(zip(lease_ids, leases, strict=True))
        owner.bytes_left -= size
        self.leased += len(taken)
        if owner.ack_timeout:
            self.extend(leases, now + owner.ack_timeout)
        return leases

    def _expire_if_due(self, entry: Entry, now: float) -> bool:
        """Whether `entry`, just taken from its lane, has expired; counts it when nobody has."""
        expires_at = entry.properties.expires_at
        if entry.id in self._gone:
            self._gone.discard(entry.id)
            return True
        self._mortal.cancel(entry.id)
        if expires_at is not None and expires_at <= now:
            self._drop_expired(entry)
            return True
        return False

    # -- settling -----------------------------------------------------------------------------------------------------

    def ack(self, owner: Owner, leases: list[Lease]) -> int:
        """Forget the messages of `leases`, all of `owner`: they are done. Return how many bytes they have."""
        size = self._let_go(owner, leases)
        self.bytes -= size
        self.acked += len(leases)
        return size

    def give_back(self, owner: Owner, leases: list[Lease], now: float, due: float | None = None) -> None:
        """Put the messages of `leases`, all of `owner`, back to their old places, ready at `due` (None: at once)."""
        self._let_go(owner, leases)
        self.requeued += len(leases)
        for lease in leases:
            entry = lease.entry_after()
            if not self._keeps(entry, now):
                continue
            if due is not None and due > now:
                self.due.set(entry.id, due, entry)
            else:
                heapq.heappush(self._lane(entry.properties.priority).returned, entry)
            self.fallout.returned.append((entry, due))

    def dead_letter(self, owner: Owner, leases: list[Lease], reason: str) -> None:
        """Take the messages of `leases`, all of `owner`, out, to be moved to the dead letter queue."""
        self._let_go(owner, leases)
        for lease in leases:
            self._drop_dead(lease.entry_after(), reason)

    def extend(self, leases: list[Lease], deadline: float) -> None:
        """Let `leases` expire at `deadline`."""
        for lease in leases:
            self.deadlines.set(lease.lease_id, deadline, lease)

    def _let_go(self, owner: Owner, leases: list[Lease]) -> int:
        """End `leases`; return how many bytes their messages have."""
        held, size = owner.held, 0
        for lease_id, (_, body, _, properties), _, _ in leases:
            del held[lease_id]
            size += len(body) + properties.headers_bytes
        if not held:
            self.holders.pop(owner, None)
        owner.bytes_left += size
        self.leased -= len(leases)
        if self.deadlines:
            for lease in leases:
                self.deadlines.cancel(lease.lease_id)
        return size

    def _drop_expired(self, entry: Entry) -> None:
        self.expired += 1
        self.bytes -= entry.size
        self.fallout.expired.append(entry)

    def _drop_dead(self, entry: Entry, reason: str) -> None:
        self.dead_lettered += 1
        self.bytes -= entry.size
        self.fallout.dead.append((entry, reason))

    # -- time passing -------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[Lease]:
        """Do what is due at `now`; return the leases that ran out, whose messages were given back in their order."""
        for entry in self._mortal.pop_due(now):
            if self.due.cancel(entry.id) is None:
                self._gone.add(entry.id)
            self._drop_expired(entry)
        for entry in self.due.pop_due(now):
            heapq.heappush(self._lane(entry.properties.priority).returned, entry)
        ended = sorted(self.deadlines.pop_due(now), key=_BY_ID)
        for lease in ended:
            self.give_back(lease.owner, [lease], now)
        if self._gone:
            self._skip_gone()
        return ended

    def _skip_gone(self) -> None:
        """Free expired messages at the heads of the lanes; with one ttl for all, that is all of them."""
        for lane in self.lanes.values():
            while (head := lane.head()) is not None and head.id in self._gone:
                self._gone.discard(head.id)
                lane.pop(head)

    # -- looking ------------------------------------------------------------------------------------------------------

    def peek_ready(self, priority: int, after_id: int, limit: int) -> list[Entry]:
        """Return up to `limit` ready messages of one priority with greater ids, of those in memory, in order."""
        alive = (entry for entry in self.lanes[priority].after(after_id) if entry.id not in self._gone)
        return list(islice(alive, limit))
