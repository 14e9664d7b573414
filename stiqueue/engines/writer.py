"""Changes, and how they become rows: one transaction each time, with the counters of every lane kept exact.

Not thread-safe: used by the journal's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import NamedTuple

from stiqueue.clock import Clock
from stiqueue.dedup import REMEMBERED_SECONDS
from stiqueue.engines.packs import Pack, packed
from stiqueue.engines.rows import (
    FLOOR_LANE,
    ID_BITS,
    MAX_ID,
    MAX_LANES,
    Common,
    LaneRow,
    RequestRow,
    Row,
    row_crc,
    shared_crc,
    write_headers,
)
from stiqueue.engines.store import Store
from stiqueue.entry import Entry
from stiqueue.errors import StiQueueError, StoreError
from stiqueue.run import Run

PAGE_BYTES = 3_500
"""Bytes of messages that a page of the file holds, at least."""
PAGES_ALWAYS = 6
"""Pages that every transaction changes: counters, indexes, the list of unused pages."""
MOST_EMPTY_LANES = 2_000
"""Lanes without messages that are remembered: a queue that comes back costs nothing, names used once do not stay."""


@dataclass(slots=True)
class Insert:
    """New messages of one batch. Times are milliseconds by the wall clock."""

    queue: str
    run: Run
    size: int
    """Bytes of their bodies and headers."""
    due_ms: int | None = None


class Remove(NamedTuple):
    """Messages of a queue and priority that are done, expired or moved."""

    queue: str
    priority: int
    entries: Sequence[Entry]
    size: int
    """Bytes of their bodies and headers."""

    @classmethod
    def of(cls, queue: str, entries: Sequence[Entry]) -> Remove:
        """Remove messages, at least one, all of one priority."""
        return cls(queue, entries[0].properties.priority, entries, sum(entry.size for entry in entries))


class Update(NamedTuple):
    """A message that is kept with other attempts, or another due time."""

    queue: str
    entry: Entry
    due_ms: int | None
    expires_ms: int | None


@dataclass(slots=True)
class Change:
    """What is written together or not at all."""

    inserts: list[Insert] = field(default_factory=list)
    removes: list[Remove] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    request: tuple[str, str, int, int] | None = None
    """(queue, request id, first id, count) to remember."""
    done: Callable[[StiQueueError | None], None] | None = None
    """Called with None once the change is safe, or with why it was refused."""

    @property
    def size(self) -> int:
        """Bytes of its new messages."""
        return sum(insert.size for insert in self.inserts)


class Writer:
    """Writes changes into a `Store`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Go on where the store is."""
        self._store = store
        self._clock = clock
        lanes = store.lanes()
        self.lanes = {(lane.queue, lane.priority): lane for lane in lanes if lane.no != FLOOR_LANE}
        """By queue and priority, as the file has them."""
        self.floor = next((lane.last_id for lane in lanes if lane.no == FLOOR_LANE), 0)
        """The highest id of all lanes that are no longer there."""
        self.seq = max((lane.seq for lane in lanes), default=0)
        """The number of the last transaction that changed a lane."""
        self._nos = {FLOOR_LANE, *(lane.no for lane in lanes)}
        self._next_no = 1
        self._empty = {name: None for name, lane in self.lanes.items() if not lane.messages}
        """Lanes without messages, those that have been so for longest first."""
        self.remembers = True
        """Whether there may be request ids to forget some day."""

    def write(self, changes: Sequence[Change], updates: Sequence[Update] = ()) -> int:
        """Write all of it in one transaction, or raise SQLite's error and have written nothing.

        Returns:
            About how many pages the transaction has put into the write-ahead log.

        Raises:
            StoreDamaged: a message that is to be removed is not there.
        """
        lanes: dict[tuple[str, int], LaneRow] = {}
        """Those that change, with their new counters."""
        removed: list[Sequence[int]] = []
        size = 0
        packs: list[Pack] = []
        rows: dict[int, Row] = {}
        requests: list[RequestRow] = []
        now_ms = int(self._clock.wall() * 1000)
        with self._numbers_kept(), self._store.transaction():
            for change in changes:
                for insert in change.inserts:
                    packs += self._packed(insert, lanes)
                    size += insert.size
                for remove in change.removes:
                    removed.append(self._removed(remove, lanes))
                    size += remove.size
                if change.request:
                    requests.append(RequestRow(*change.request, now_ms))
            for update in chain.from_iterable([*(change.updates for change in changes), updates]):
                row = self._row(update)
                rows[row.key] = row
            self._store.insert(packs)
            places = self._store.change(removed, rows)
            for lane in lanes.values():
                lane.seq = self.seq + 1
            self._store.save_lanes(lanes.values())
            self._store.remember(requests, self._oldest_ms())
        self.lanes.update(lanes)
        self.seq += bool(lanes)
        self.remembers = self.remembers or bool(requests)
        for name, lane in lanes.items():
            self._empty.pop(name, None)
            if not lane.messages:
                self._empty[name] = None
        return size // PAGE_BYTES + 2 * places + len(requests) // 20 + PAGES_ALWAYS

    @contextmanager
    def _numbers_kept(self) -> Iterator[None]:
        """Take the numbers of new lanes back when the transaction fails."""
        try:
            yield
        except BaseException:
            self._nos = {FLOOR_LANE, *(lane.no for lane in self.lanes.values())}
            raise

    def _packed(self, insert: Insert, lanes: dict[tuple[str, int], LaneRow]) -> list[Pack]:
        """Count new messages into their lane, and pack them."""
        run, properties = insert.run, insert.run.properties
        lane = self._lane(insert.queue, properties.priority, lanes)
        if run.last_id > MAX_ID:
            raise StoreError(f"{self._store.path}: queue {insert.queue} has no ids left")
        lane.messages += len(run)
        lane.bytes += insert.size
        lane.last_id = max(lane.last_id, run.last_id)
        headers = write_headers(properties.headers)
        common = Common(properties.enqueue_time_ms, run.attempt, insert.due_ms, properties.expires_ms, headers)
        return packed(lane.no << ID_BITS | run.first_id, run.bodies, common)

    def _removed(self, remove: Remove, lanes: dict[tuple[str, int], LaneRow]) -> Sequence[int]:
        """Count messages out of their lane; return their keys."""
        lane = self._lane(remove.queue, remove.priority, lanes)
        lane.messages -= len(remove.entries)
        lane.bytes -= remove.size
        base = lane.no << ID_BITS
        keys = [base | message_id for message_id, _, _, _ in remove.entries]
        run = range(keys[0], keys[-1] + 1)
        return run if len(run) == len(keys) and keys == list(run) else keys  # a run, as they usually are

    def _lane(self, queue: str, priority: int, lanes: dict[tuple[str, int], LaneRow]) -> LaneRow:
        """Return the counters of a lane that changes, in `lanes` from now on."""
        lane = lanes.get((queue, priority))
        if lane is None:
            known = self.lanes.get((queue, priority))
            if known is None:
                known = LaneRow(self._new_no(), queue, priority)
            lane = lanes[queue, priority] = replace(known)
        return lane

    def _new_no(self) -> int:
        """Return a number that no lane has."""
        if len(self._nos) >= MAX_LANES:
            raise StoreError(f"{self._store.path}: has {len(self._nos)} lanes, more than there are numbers for")
        while self._next_no in self._nos:
            self._next_no = (self._next_no + 1) % MAX_LANES
        self._nos.add(self._next_no)
        return self._next_no

    def forget_requests(self) -> None:
        """Forget request ids that have been remembered long enough."""
        with self._store.transaction():
            self.remembers = self._store.forget(self._oldest_ms())

    def _oldest_ms(self) -> int:
        return int((self._clock.wall() - REMEMBERED_SECONDS) * 1000)

    def forget_lanes(self) -> None:
        """Forget lanes that have long been without messages, when there are many of them."""
        if len(self._empty) <= MOST_EMPTY_LANES:
            return
        names = list(islice(self._empty, len(self._empty) - MOST_EMPTY_LANES // 2))
        lanes = [self.lanes[name] for name in names]
        floor = max([self.floor, *(lane.last_id for lane in lanes)])
        with self._store.transaction():
            self._store.delete_lanes(lane.no for lane in lanes)
            self._store.save_lanes([LaneRow(FLOOR_LANE, "", 0, last_id=floor, seq=self.seq + 1)])
        self.floor = floor
        self.seq += 1
        self._nos.difference_update(lane.no for lane in lanes)
        for name in names:
            del self.lanes[name], self._empty[name]

    def _row(self, update: Update) -> Row:
        queue, entry, due_ms, expires_ms = update
        key = self.lanes[queue, entry.properties.priority].no << ID_BITS | entry.id
        time_ms, headers = entry.properties.enqueue_time_ms, write_headers(entry.properties.headers)
        crc = row_crc(shared_crc(time_ms, entry.attempt, due_ms, expires_ms, headers), key, entry.body)
        return Row(key, time_ms, entry.attempt, due_ms, expires_ms, headers, crc, entry.body)
