"""Changes become rows: one transaction each time, with the counters of every lane kept exact.

Not thread-safe: used by the journal's thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import Change, Insert, LaneName, Remove, Update
from stiqueue.engines.sqlite.packs import Pack, pack
from stiqueue.engines.sqlite.rows import (
    FLOOR_LANE,
    ID_BITS,
    MAX_ID,
    MAX_LANES,
    Common,
    LaneRow,
    RequestRow,
    Row,
    SettingRow,
    place_of,
    row_crc,
    shared_crc,
    write_headers,
)
from stiqueue.engines.sqlite.store import Store
from stiqueue.errors import StoreError
from stiqueue.rules.entry import Entry
from stiqueue.rules.recent import REMEMBERED_SECONDS

BODY_BYTES = 3_500
"""The least bytes of bodies in a full page."""
FORGET_SECONDS = 1.0
"""How often old request ids are looked for while others are written."""
PAGE_LANES = 30
"""The number of lanes whose counters share a page, about."""
PAGES_ALWAYS = 4
"""Pages that every transaction changes: counters, the last pages of the tables, at times an index."""
MOST_EMPTY_LANES = 2_000
"""Lanes without messages that are kept: a queue that comes back is cheap, and names used once do not stay."""


class Writer:
    """Writes changes into a `Store`."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Continue from the state of the store."""
        self._store = store
        self._clock = clock
        lanes = store.lanes()
        self.lanes = {lane.name: lane for lane in lanes if lane.no != FLOOR_LANE}
        """The counters in the file."""
        self.floor = next((lane.last_id for lane in lanes if lane.no == FLOOR_LANE), 0)
        """The highest id of all deleted lanes."""
        self.seq = max((lane.seq for lane in lanes), default=0)
        """The number of the last transaction that changed a lane."""
        self._nos = {FLOOR_LANE, *(lane.no for lane in lanes)}
        self._next_no = 1
        self._empty = {name: None for name, lane in self.lanes.items() if not lane.messages}
        """Lanes without messages, the longest empty first."""
        self.remembers = True
        """Whether the file may contain request ids."""
        self._forget_at = 0.0

    def write(self, changes: Sequence[Change]) -> int:
        """Write changes in one transaction, or raise SQLite's error and write nothing.

        Returns:
            The approximate number of pages that the transaction added to the write-ahead log.

        Raises:
            StoreDamaged: a message to remove is missing.
        """
        lanes: dict[LaneName, LaneRow] = {}
        """The lanes that change, with their new counters."""
        try:
            with self._store.transaction():
                pages = self._write(changes, lanes)
        except BaseException:  # the numbers of new lanes are free again
            self._nos = {FLOOR_LANE, *(lane.no for lane in self.lanes.values())}
            raise
        self.lanes.update(lanes)
        self.seq += bool(lanes)
        for name, lane in lanes.items():
            self._empty.pop(name, None)
            if not lane.messages:
                self._empty[name] = None
        return pages

    def _write(self, changes: Sequence[Change], lanes: dict[LaneName, LaneRow]) -> int:
        removed: list[Sequence[int]] = []
        size = 0
        packs: list[Pack] = []
        rows: dict[int, Row] = {}
        requests: list[RequestRow] = []
        settings: list[SettingRow] = []
        now_ms = int(self._clock.wall() * 1000)
        for change in changes:
            for insert in change.inserts:
                packs += self._packed(insert, lanes)
                size += insert.size
            for remove in change.removes:
                size += self._removed(remove, lanes, removed)
            for update in change.updates:
                row = self._row(update, lanes)
                rows[row.key] = row
            if change.request:
                requests.append(RequestRow(*change.request, now_ms))
            if change.policy:
                settings.append(SettingRow.of(change.policy, now_ms))
        store = self._store
        if packs:
            store.insert(packs)
        places = store.change(removed, rows, {x.no: x for x in lanes.values()}) if removed or rows else 0
        if lanes:
            for lane in lanes.values():
                lane.seq = self.seq + 1
            store.save_lanes(lanes.values())
        if requests:
            self.remembers = True
            store.remember(requests, self._oldest_ms() if self._is_time_to_forget() else None)
        if settings:
            store.save_settings(settings)
        counters = min(len(lanes), len(self.lanes) // PAGE_LANES)
        return size // BODY_BYTES + 2 * places + counters + len(requests) // 20 + PAGES_ALWAYS

    def _is_time_to_forget(self) -> bool:
        now = self._clock.monotonic()
        if now < self._forget_at:
            return False
        self._forget_at = now + FORGET_SECONDS
        return True

    def _packed(self, insert: Insert, lanes: dict[LaneName, LaneRow]) -> list[Pack]:
        """Add new messages to the counters of their lane, and pack them."""
        run, properties = insert.run, insert.run.properties
        lane = self._lane(LaneName(insert.queue, properties.priority, properties.key), lanes)
        if run.last_id > MAX_ID:
            raise StoreError(f"{self._store.path}: queue {insert.queue} has no ids left")
        lane.messages += len(run)
        lane.bytes += insert.size
        lane.last_id = max(lane.last_id, run.last_id)
        headers = write_headers(properties.headers, properties.unique_key)
        common = Common(properties.enqueue_time_ms, run.attempt, insert.due_ms, properties.expires_ms, headers)
        return pack(lane.no << ID_BITS | run.first_id, run.bodies, common)

    def _removed(self, remove: Remove, lanes: dict[LaneName, LaneRow], removed: list[Sequence[int]]) -> int:
        """Subtract messages from the counters of their lanes; add to `removed` the keys whose packs must change.

        Returns:
            About how many bytes that writes.
        """
        if remove.lane is None:
            return self._removed_each(remove, lanes, removed)
        lane = self._lane(remove.lane, lanes)
        lane.messages -= len(remove.entries)
        lane.bytes -= remove.size
        ids = [message_id for message_id, _, _, _ in remove.entries]
        run = range(ids[0], ids[-1] + 1)
        base = lane.no << ID_BITS
        if len(run) != len(ids) or ids != list(run):
            removed.append([base | message_id for message_id in ids])
        elif run.start == lane.gone_before and run.stop < lane.pack_end:
            lane.gone_before = run.stop
            return 0
        else:
            removed.append(range(base | run.start, base | run.stop))  # usually a run
        # Deleting a large body writes only its first page; the others join the list of unused pages.
        return min(remove.size, len(ids) * BODY_BYTES)

    def _removed_each(self, remove: Remove, lanes: dict[LaneName, LaneRow], removed: list[Sequence[int]]) -> int:
        """Do the same for messages of several lanes."""
        keyless: dict[int, list[Entry]] = {}
        keys: list[int] = []
        size = 0
        for entry in remove.entries:
            message_id, body, _, properties = entry
            if not properties.key:
                keyless.setdefault(properties.priority, []).append(entry)
                continue
            # Those of a key usually leave one by one.
            name = LaneName(remove.queue, properties.priority, properties.key)
            lane = lanes.get(name) or self._lane(name, lanes)
            lane.messages -= 1
            lane.bytes -= len(body) + properties.headers_bytes
            if message_id == lane.gone_before and message_id + 1 < lane.pack_end:
                lane.gone_before += 1
            else:
                keys.append(lane.no << ID_BITS | message_id)
                size += min(len(body), BODY_BYTES)
        if keys:
            removed.append(keys)
        same = (Remove.of(LaneName(remove.queue, priority), entries) for priority, entries in keyless.items())
        return size + sum(self._removed(each, lanes, removed) for each in same)

    def _lane(self, name: LaneName, lanes: dict[LaneName, LaneRow]) -> LaneRow:
        """Return the new counters of a lane, adding it to `lanes`."""
        lane = lanes.get(name)
        if lane is None:
            known = self.lanes.get(name)
            if known is None:
                known = LaneRow(self._new_no(), place_of(name), name.priority)
            lane = lanes[name] = known.copy()
        return lane

    def _new_no(self) -> int:
        """Return an unused lane number."""
        if len(self._nos) >= MAX_LANES:
            raise StoreError(f"{self._store.path}: has {len(self._nos)} lanes, more than there are numbers for")
        while self._next_no in self._nos:
            self._next_no = (self._next_no + 1) % MAX_LANES
        self._nos.add(self._next_no)
        return self._next_no

    def forget_requests(self) -> None:
        """Delete old request ids."""
        with self._store.transaction():
            self.remembers = self._store.forget(self._oldest_ms())

    def _oldest_ms(self) -> int:
        return int((self._clock.wall() - REMEMBERED_SECONDS) * 1000)

    def forget_lanes(self) -> None:
        """Delete the lanes that have been empty longest, if there are many."""
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

    def _row(self, update: Update, lanes: dict[LaneName, LaneRow]) -> Row:
        """Return the new row of a message; add its lane to `lanes` if its pack may not be whole."""
        queue, entry, due_ms, expires_ms = update
        properties = entry.properties
        name = LaneName(queue, properties.priority, properties.key)
        lane = self.lanes[name]
        if lane.gone_before:
            self._lane(name, lanes)
        key = lane.no << ID_BITS | entry.id
        time_ms, headers = properties.enqueue_time_ms, write_headers(properties.headers, properties.unique_key)
        crc = row_crc(shared_crc(time_ms, entry.attempt, due_ms, expires_ms, headers), key, entry.body)
        return Row(key, time_ms, entry.attempt, due_ms, expires_ms, headers, crc, entry.body)
