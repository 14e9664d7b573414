"""The ready messages of one queue. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import chain, islice

from stiqueue.rules.entry import Entry
from stiqueue.rules.lane import Window
from stiqueue.rules.lanes import Lanes
from stiqueue.rules.lease import Owner
from stiqueue.rules.run import Run
from stiqueue.rules.strands import Strands

Dropped = Callable[[Entry, float], bool]
"""Drops a message that expired, and returns whether it did."""


class Ready:
    """Messages that are neither leased nor delayed: lanes of those without a key, strands of the others."""

    def __init__(self, window: Window | None) -> None:
        """Start empty; `window` limits what is in memory when a journal has the rest. None: no limit."""
        self.expired: set[int] = set()
        """Messages that expired and are still in a lane or a strand, to be skipped."""
        self.lanes = Lanes(window)
        self.strands = Strands(window, self.expired)

    def __len__(self) -> int:
        return self.lanes.messages + self.strands.messages - len(self.expired)

    @property
    def priorities(self) -> list[int]:
        """The priorities of which there may be messages, the highest first."""
        return sorted(self.lanes.keys() | self.strands.priorities, reverse=True)

    def has_head(self) -> bool:
        """Whether the next message is in memory; then a consumer with credit that gets none lacks room for it."""
        place, other = self.strands.first(), self.lanes.next()
        if place is None or (other is not None and other < place[:2]):
            return self.lanes.has_head()
        return not self.strands.waits_for_load

    @property
    def is_filling(self) -> bool:
        """Whether messages that can be delivered are on their way into memory."""
        return self.lanes.stored or self.strands.waits_for_load

    def heads(self) -> list[Entry]:
        """Return messages that can be delivered next, of each priority without a key, among which is the oldest."""
        heads = [head for lane in self.lanes.values() if (head := lane.head())]
        head = self.strands.head()
        return heads if head is None else [*heads, head]

    # -- coming in ----------------------------------------------------------------------------------------------------

    def add(self, run: Run, size: int) -> bool:
        """Put new messages of `size` bytes behind all others; return whether they are in memory."""
        if run.properties.key:
            return self.strands.add(run, size)
        lane = self.lanes.open(run.properties.priority)
        window = self.lanes.window
        if window is not None:
            if lane.stored or window.is_full(lane):
                lane.stored += len(run)
                return False
            lane.edge = run.last_id
        lane.append(run, size)
        return True

    def put_back(self, entry: Entry) -> None:
        """Put a message at its place by id, before all newer ones of its priority and key."""
        (self.strands if entry.properties.key else self.lanes).put_back(entry)

    def restore(self, priority: int, stored: int, key: str, edge: int) -> None:
        """Count messages that only the journal has; those with a key have ids above `edge`."""
        if not key:
            self.lanes.open(priority).stored = stored
        elif stored:
            self.strands.restore(priority, key, stored, edge)

    def expire(self, entry: Entry) -> None:
        """Skip a message, wherever it stands, because it has expired."""
        self.expired.add(entry.id)
        if entry.properties.key:
            self.strands.expire(entry)

    def skip_expired(self) -> None:
        """Remove expired messages at the heads of the lanes; if all have the same ttl, that is every expired one."""
        for lane in self.lanes.values() if self.expired else ():
            while (head := lane.head()) is not None and head.id in self.expired:
                self.expired.discard(head.id)
                lane.pop(head)

    # -- going out ----------------------------------------------------------------------------------------------------

    def take(
        self, owner: Owner, limit: int, limit_bytes: int, now: float, dropped: Dropped | None
    ) -> tuple[list[Entry], int]:
        """Remove the next messages, as `Lanes.take` does; those with a key hold it, unless `owner` has `no_ack`."""
        if not self.strands or (place := self.strands.first()) is None:
            return self.lanes.take(owner, limit, limit_bytes, now, dropped)
        most = int(min(limit, owner.room(), owner.left))
        # The first goes even if it is larger than there is room, unless its owner is to have no more than that.
        room = owner.bytes_left if owner.held or owner.arrears.is_strict else float("inf")
        limit_bytes = min(limit_bytes, owner.bytes_left)
        without = self.lanes.next()
        if without is None and dropped is None and not owner.no_ack:
            return self.strands.take(most, room, limit_bytes)
        taken: list[Entry] = []
        used = 0
        while len(taken) < most:
            # One at a time, because the next of the same key may stand before those of others.
            if place is None or (without is not None and without < place[:2]):
                head = self.lanes.head()
                if head is None or (size := head.size) > room:
                    break
                self.lanes.pop(head)
                without = self.lanes.next()
                entries = [head]
            else:
                entries, size = self.strands.take(1, room, room)
                if not entries:
                    break
            is_dropped = dropped is not None and dropped(entries[0], now)
            if is_dropped or owner.no_ack:
                self.strands.release(filter(None, [entries[0].properties.key]))
            place = self.strands.first()
            if not is_dropped:
                taken += entries
                used += size
                room = limit_bytes - used
        return taken, used

    def find(self, message_id: int) -> Entry | None:
        """Return a message in memory by its id, or None."""
        if message_id in self.expired:
            return None
        return self.lanes.find(message_id) or self.strands.find(message_id)

    def is_stored(self, message_id: int) -> bool:
        """Whether a message that is not in memory may be in the log alone. Of one with a key, its id does not tell."""
        return self.strands.stored > 0 or self.lanes.is_stored(message_id)

    def adopt(self, entry: Entry) -> bool:
        """Put a message that was read alone at its place in memory, if only the log had it; return whether so."""
        if entry.properties.key:
            return self.strands.adopt(entry)
        lane = self.lanes.get(entry.properties.priority)
        if lane is None or not lane.is_stored(entry.id):
            return False
        lane.adopt(entry)
        return True

    def remove(self, entry: Entry) -> None:
        """Remove a message that `find` returned."""
        if entry.properties.key:
            self.strands.remove(entry)
        else:
            self.lanes[entry.properties.priority].remove(entry.id)

    def remove_spent(self, attempts: int) -> list[Entry]:
        """Remove the messages in memory that had so many attempts; return those that have not expired."""
        spent = self.lanes.remove_spent(attempts)
        alive = [entry for entry in spent if entry.id not in self.expired]
        self.expired.difference_update(entry.id for entry in spent)
        return alive + self.strands.remove_spent(attempts)

    # -- looking ------------------------------------------------------------------------------------------------------

    def peek(self, priority: int, after_id: int, limit: int) -> list[Entry]:
        """Return in order up to `limit` messages in memory of one priority with greater ids."""
        lane = self.lanes.get(priority)
        ways = ([] if lane is None else [lane.after(after_id)], [self.strands.after(priority, after_id)])
        alive = (entry for entry in heapq.merge(*chain(*ways)) if entry.id not in self.expired)
        return list(islice(alive, limit))

    def stored(self, priority: int) -> list[tuple[int, str]]:
        """Return (edge, key) of all messages of a priority that only the journal has; they have ids above it."""
        lane = self.lanes.get(priority)
        without = [(lane.edge, "")] if lane is not None and lane.stored else []
        sources = ((strand.stored_of(priority), key) for key, strand in self.strands.items() if strand.stored)
        return without + [(stored.edge, key) for stored, key in sources if stored is not None and stored.messages]

    def edge(self, priority: int, key: str) -> int | None:
        """Return above which id messages are only in the journal; None: it has no others."""
        if not key:
            lane = self.lanes.get(priority)
            return lane.edge if lane is not None and lane.stored else None
        strand = self.strands.get(key)
        stored = None if strand is None else strand.stored_of(priority)
        return stored.edge if stored is not None and stored.messages else None

    def gone(self, priority: int, key: str) -> set[int]:
        """Return the ids of messages that the log may have behind `edge`, although they are leased or done."""
        strand = self.strands.get(key)
        source = self.lanes.get(priority) if strand is None else strand.stored_of(priority)
        return set() if source is None else {each for each in source.adopted if self.find(each) is None}

    def is_blocked(self, entry: Entry) -> bool:
        """Whether a message waits for another of its key."""
        strand = self.strands.get(entry.properties.key)
        return strand is not None and strand.held > 0
