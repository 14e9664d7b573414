"""The messages of one queue that nobody holds. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from stiqueue.rules.alarms import Alarms
from stiqueue.rules.entry import Entry
from stiqueue.rules.fallout import Fallout
from stiqueue.rules.lane import Window
from stiqueue.rules.lease import Lease, Owner
from stiqueue.rules.ready import Ready
from stiqueue.rules.run import Run
from stiqueue.rules.tally import Tally
from stiqueue.rules.uniques import Uniques

MAX_ATTEMPTS_REASON = "max-attempts"
"""The reason of dead letters that reached the limit of attempts."""


class Unheld:
    """Ready and delayed messages. Drops those that expired or had their last attempt into `fallout`."""

    def __init__(self, window: Window | None, uniques: Uniques, tally: Tally, fallout: Fallout) -> None:
        """Start empty.

        Args:
            window: how much is in memory when a journal has the rest; None: there is no journal.
            uniques: the unique keys of the queue.
            tally: the counters of the queue.
            fallout: where messages go that expire or die.
        """
        self.ready = Ready(window)
        self.due: Alarms[int, Entry] = Alarms()
        """Delayed messages."""
        self.holding: set[int] = set()
        """Delayed messages that were given back and hold up their key."""
        self.max_attempts = 0
        """Deliveries before a message is a dead letter; 0: no limit."""
        self.mortal: Alarms[int, Entry] = Alarms()
        """Messages with a ttl that has not passed."""
        self._is_logged = window is not None
        """Whether there is a journal. Then the key of a message that is done stays held up until `free` is called."""
        self._uniques = uniques
        self._tally = tally
        self._fallout = fallout

    def __len__(self) -> int:
        return len(self.ready) + len(self.due)

    # -- coming in ----------------------------------------------------------------------------------------------------

    def restore(self, priority: int, stored: int, stored_bytes: int, key: str = "", edge: int = 0) -> None:
        """Count stored messages without a due time, none of which is in memory yet.

        Those with a key have ids above `edge`.
        """
        self._tally.bytes += stored_bytes
        self.ready.restore(priority, stored, key, edge)

    def add(self, run: Run, size: int, due: float | None = None) -> None:
        """Take in new messages of `size` bytes with rising ids; they are ready at `due` (None: at once)."""
        self._tally.enqueued += len(run)
        self._tally.bytes += size
        expires_at = run.properties.expires_at
        if due is None and (not self.ready.add(run, size) or expires_at is None):
            return
        for entry in run.entries():
            if due is not None:
                self.due.set(entry.id, due, entry)
            if expires_at is not None:
                self.mortal.set(entry.id, expires_at, entry)

    def put_back(self, entry: Entry, now: float, due: float | None, holds: bool = False) -> bool:
        """Take in a message that was leased, or was delayed when the log was closed; return whether it is good.

        Args:
            entry: the message.
            now: the time.
            due: when it is ready; None: at once, at its old place.
            holds: whether it holds up its key until then, because it was given back.
        """
        if self._drop_if_spent(entry, now):
            return False
        if due is None:
            self.ready.put_back(entry)
        else:
            self.due.set(entry.id, due, entry)
            if holds and entry.properties.key:
                self.holding.add(entry.id)
                self.ready.strands.hold(entry.properties.key)
        return True

    def load(self, priority: int, key: str, runs: list[Run], now: float) -> None:
        """Take in a page from the log: the next stored messages of a priority and key."""
        if key:
            self.ready.strands.begin_load(priority, key, runs)
            self.ready.strands.load(priority, key, list(self._good(filter(None, runs), now)))
            return
        lane = self.ready.lanes[priority]
        lane.load(runs)
        for run in self._good(filter(None, runs), now):
            lane.append(run, run.size)

    def adopt(self, entry: Entry) -> None:
        """Take in one stored message that was read alone, unless it is in memory by now."""
        expires_at = entry.properties.expires_at
        if self.ready.adopt(entry) and expires_at is not None:
            self.mortal.set(entry.id, expires_at, entry)

    # -- going out ----------------------------------------------------------------------------------------------------

    def take(self, owner: Owner, limit: int, limit_bytes: int, now: float) -> tuple[list[Entry], int]:
        """Remove the next ready messages for `owner`; return them and their bytes."""
        expired = self.ready.expired
        if not (self.mortal or expired):
            return self.ready.take(owner, limit, limit_bytes, now, None)
        taken = self.ready.take(owner, limit, limit_bytes, now, self._drop_if_expired)
        self.ready.skip_expired()
        return taken

    def find(self, message_id: int) -> Entry | None:
        """Return a message in memory by its id, or None."""
        return self.due.get(message_id) or self.ready.find(message_id)

    def is_stored(self, message_id: int) -> bool:
        """Whether a message is not in memory, and may be in the log alone; if not, it is leased or not there."""
        return self.find(message_id) is None and self.ready.is_stored(message_id)

    def withdraw(self, entry: Entry, now: float) -> bool:
        """Remove a message that `find` has returned; return whether it is good, that is, has not expired."""
        if entry.id in self.due:
            self.due.cancel(entry.id)
            self._undelay(entry)
            self.ready.lanes.open(entry.properties.priority)  # as every message that is leased has a lane
        else:
            self.ready.remove(entry)
        return not self._drop_if_expired(entry, now)

    def limit_attempts(self, most: int) -> None:
        """Limit the deliveries of a message from now on; messages that had as many become dead letters."""
        is_stricter = most and (not self.max_attempts or most < self.max_attempts)
        self.max_attempts = most
        if not is_stricter:
            return
        spent = [entry for _, entry in self.due.items() if entry.attempt >= most]
        for entry in spent:
            self.due.cancel(entry.id)
            self._undelay(entry)
        for entry in sorted([*spent, *self.ready.remove_spent(most)]):
            self.mortal.cancel(entry.id)
            self.drop_dead(entry, MAX_ATTEMPTS_REASON)

    def tick(self, now: float) -> None:
        """Drop the messages that expire by `now`, and make those ready that are due."""
        for entry in self.mortal.pop_due(now):
            if self.due.cancel(entry.id) is not None:
                self._undelay(entry)
            else:
                self.ready.expire(entry)
            self._drop_expired(entry)
        for entry in self.due.pop_due(now):
            self.ready.put_back(entry)
            self._undelay(entry)

    def drop_dead(self, entry: Entry, reason: str) -> None:
        """Let a message that nobody holds become a dead letter."""
        self._tally.dead_lettered += 1
        self._tally.bytes -= entry.size
        self._fallout.dead.append((entry, reason))
        if self._is_logged and entry.properties.key:
            self.ready.strands.hold(entry.properties.key)
        if entry.properties.unique_key:
            self._uniques.free(entry.id, entry.properties)

    # -- keys ---------------------------------------------------------------------------------------------------------

    def finish(self, leases: Iterable[Lease]) -> None:
        """Let the keys of messages go that are done, if there is no journal; else `free` does it later."""
        if not self._is_logged:
            self.release(leases)

    def release(self, leases: Iterable[Lease]) -> None:
        """Let the keys of messages go that are no longer leased."""
        self.free([entry for _, entry, _, _ in leases])

    def free(self, entries: Iterable[Entry]) -> None:
        """Let the keys of messages go that were acked or became dead letters, now that this is in the journal.

        A crash before that would bring such a message back after the next one of its key had been delivered.
        """
        self.ready.strands.release([key for _, _, _, properties in entries if (key := properties.key)])

    def _undelay(self, entry: Entry) -> None:
        """Note that a message is no longer delayed."""
        if entry.id in self.holding:
            self.holding.discard(entry.id)
            self.ready.strands.release([entry.properties.key])

    # -- the end of a message -----------------------------------------------------------------------------------------

    def _good(self, runs: Iterable[Run], now: float) -> Iterator[Run]:
        """Iterate over the messages of `runs` that are not spent; drop the others."""
        for run in runs:
            if run.properties.expires_at is None and not (self.max_attempts and run.attempt >= self.max_attempts):
                yield run
            else:
                yield from (Run.of(entry) for entry in run.entries() if not self._drop_if_spent(entry, now))

    def _drop_if_spent(self, entry: Entry, now: float) -> bool:
        """Drop a message that nobody holds if it expired or had its last attempt; return whether it did.

        A message that stays gets its alarm, if it has a ttl.
        """
        expires_at = entry.properties.expires_at
        if expires_at is not None and expires_at <= now:
            self._drop_expired(entry)
            return True
        if self.max_attempts and entry.attempt >= self.max_attempts:
            self.drop_dead(entry, MAX_ATTEMPTS_REASON)
            return True
        if expires_at is not None:
            self.mortal.set(entry.id, expires_at, entry)
        if entry.properties.unique_key:
            self._uniques.put_back(entry.id, entry.properties)
        return False

    def _drop_if_expired(self, entry: Entry, now: float) -> bool:
        """Drop `entry`, just taken from its place, if it expired; return whether it did."""
        expires_at = entry.properties.expires_at
        if entry.id in self.ready.expired:
            self.ready.expired.discard(entry.id)
            return True
        self.mortal.cancel(entry.id)
        if expires_at is not None and expires_at <= now:
            self._drop_expired(entry)
            return True
        return False

    def _drop_expired(self, entry: Entry) -> None:
        self._tally.expired += 1
        self._tally.bytes -= entry.size
        self._fallout.expired.append(entry)
        if entry.properties.unique_key:
            self._uniques.free(entry.id, entry.properties)
