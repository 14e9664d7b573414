"""The readable rest of a damaged data file: every row with a valid checksum, wherever it is.

Reads each page by itself, and changes nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from stiqueue.engines.sqlite.damage.loss import Loss
from stiqueue.engines.sqlite.damage.pages import PageFile, Record, Value
from stiqueue.engines.sqlite.packs import Pack
from stiqueue.engines.sqlite.rows import (
    ID_BITS,
    KEY_MARK,
    LANE_COLUMNS,
    MAX_ID,
    LaneRow,
    RequestRow,
    Row,
    SettingRow,
    is_right,
    shared_crc,
)
from stiqueue.engines.sqlite.tables import NO_MESSAGE
from stiqueue.limits import MAX_PRIORITY, queue_name

LOST_QUEUE = "salvaged-{}"
"""The queue for messages whose queue is unknown."""
_NAME_COLUMNS = 3
_GARBAGE = (TypeError, ValueError, OverflowError, struct.error)
"""The exceptions that parsing garbage raises; InvalidRequest is a ValueError."""


class Remains:
    """The readable contents of a file: rows with valid checksums, and the counters of lanes."""

    def __init__(self, path: Path) -> None:
        """Read the file and its log, either of which may be missing."""
        self._path = path
        self.lanes: dict[int, LaneRow] = {}
        """The latest known counters of each lane, by number."""
        self.requests: dict[tuple[str, str], RequestRow] = {}
        self.settings: dict[str, SettingRow] = {}
        """The latest known settings by name or pattern."""
        self.unreadable = 0
        """Rows that are unreadable or have a wrong checksum."""
        self.is_ours = False
        """Whether the file is a StiQueue data file, even without messages."""
        self._names: dict[int, tuple[str, int]] = {}
        """Place and priority of lanes by an index, which has no checksum."""

    def messages(self, carve: bool = True) -> Iterator[Row]:
        """Iterate over all messages, some perhaps twice; collect everything else on the way.

        With `carve`, also search damaged pages for messages outside of their headers, which takes 0.05 s per page.
        """
        with _content(self._path) as (data, log):
            pages = PageFile(data, log)
            self.is_ours = b"CREATE TABLE lane (" in pages.page(1)
            counted: dict[int, int] = {}
            damaged: set[int] = set()
            for each in (False, True):  # the counters first, which tell the messages that are gone
                for number, record in pages.records():
                    if _is_pack(record) is not each:
                        continue
                    unreadable = self.unreadable
                    rows = self._understand(record)
                    if self.unreadable > unreadable:
                        damaged.add(number)
                    for row in rows:
                        counted[row.key >> ID_BITS] = counted.get(row.key >> ID_BITS, 0) + 1
                    yield from rows
            # Only for lanes that miss messages, because some of these rows were acked since.
            for record in pages.older():
                for row in self._understand(record):
                    if self._is_missing(row.key >> ID_BITS, counted):
                        yield row
            if not carve or not (counted or self.lanes or self.is_ours):
                return
            for key, columns in pages.carved(damaged | pages.incomplete):
                for row in _messages(key, columns):
                    if is_right(row) and self._is_missing(row.key >> ID_BITS, counted) and not self._is_gone(row):
                        yield row

    def loss(self, saved: Mapping[int, int], mark: int) -> Loss:
        """Return the loss if `saved` messages (by lane) are readable and `mark` transactions were confirmed."""
        missing = sum(max(0, lane.messages - saved.get(no, 0)) for no, lane in self.lanes.items())
        if not self.lanes or any(no not in self.lanes for no in saved):
            return Loss(missing, None, counted=False)
        seq = max(lane.seq for lane in self.lanes.values())
        return Loss(missing, max(0, mark - seq) if mark else None)

    def last_good(self, mark: int) -> str:
        """Describe the newest message by id and queue if all are readable; otherwise how many are."""
        last = {row.key: row.time_ms for row in self.messages(carve=False)}
        loss = self.loss(Counter(key >> ID_BITS for key in last), mark)
        if loss.messages or not loss.counted:
            return f"unknown, {len(last):,} messages can be read, {loss.words}"
        key = max(last, key=lambda key: (last[key], key), default=None)
        return f"{key & MAX_ID} of {self.name_of(key >> ID_BITS)[0].partition(KEY_MARK)[0]}" if key else NO_MESSAGE

    def name_of(self, no: int) -> tuple[str, int]:
        """Return the place (the queue and the key) and the priority of a lane."""
        if no in self.lanes:
            return self.lanes[no].place, self.lanes[no].priority
        taken = {(lane.place, lane.priority) for lane in self.lanes.values()}
        name = self._names.get(no)
        return name if name and name not in taken else (LOST_QUEUE.format(no), 0)

    def _is_missing(self, no: int, counted: Mapping[int, int]) -> bool:
        return no not in self.lanes or counted.get(no, 0) < self.lanes[no].messages

    def _is_gone(self, row: Row) -> bool:
        lane = self.lanes.get(row.key >> ID_BITS)
        return lane is not None and lane.gone_from <= row.id < lane.gone_before

    def _understand(self, record: Record | None) -> list[Row]:
        """Return the valid messages of a record; collect counters, requests and names from other records."""
        if record is None:
            self.unreadable += 1
            return []
        key, columns = record
        try:
            if key is None:
                self._learn(columns)
            elif rows := _messages(key, columns):
                left = [row for row in rows if not self._is_gone(row)]
                right = [row for row in left if is_right(row)]
                self.unreadable += len(left) - len(right)
                return right
            elif len(columns) >= LANE_COLUMNS:  # so many has a pack, too
                self._learn_lane(key, columns)
            elif len(columns) == len(SettingRow._fields) + 2:
                self._learn_settings(columns)
            else:
                self._learn_request(columns)
        except _GARBAGE:
            self.unreadable += 1
        return []

    def _learn_lane(self, key: int, columns: list[Value]) -> None:
        lane = LaneRow.of([key, *columns[1:]])
        if lane is None:
            raise ValueError("neither a message nor the counters of a lane")
        if key not in self.lanes or self.lanes[key].seq < lane.seq:
            self.lanes[key] = lane

    def _learn_request(self, columns: list[Value]) -> None:
        if len(columns) == len(RequestRow._fields) + 2:
            request = RequestRow(*columns[1:-1])  # type: ignore[arg-type]  # the checksum decides
            known = self.requests.get(request[:2])
            if request.crc() == columns[-1] and (known is None or known.time_ms < request.time_ms):
                self.requests[request[:2]] = request

    def _learn_settings(self, columns: list[Value]) -> None:
        row = SettingRow(*columns[1:-1])  # type: ignore[arg-type]  # the checksum decides
        known = self.settings.get(row.pattern)
        if row.crc() != columns[-1]:
            raise ValueError("not the settings of a queue")
        if known is None or known.time_ms < row.time_ms:
            self.settings[row.pattern] = row

    def _learn(self, columns: list[Value]) -> None:
        """Collect the name of a lane from a row of an index."""
        if len(columns) == _NAME_COLUMNS:
            queue, priority, no = columns
            if isinstance(queue, str) and isinstance(priority, int) and isinstance(no, int):
                queue_name(queue.partition(KEY_MARK)[0])
                if 0 <= priority <= MAX_PRIORITY:
                    self._names[no] = queue, priority


def _is_pack(record: Record | None) -> bool:
    """Whether a record may be a pack of messages."""
    return record is not None and record[0] is not None and _has_bodies(record[1])


def _has_bodies(columns: list[Value]) -> bool:
    return len(columns) == len(Pack._fields) and all(isinstance(each, bytes) for each in columns[-2:])


def _messages(key: int | None, columns: list[Value]) -> list[Row]:
    """Return the messages of a row, unchecked; [] if it is another kind of row."""
    if key is None or not _has_bodies(columns):
        return []
    with contextlib.suppress(*_GARBAGE):
        rows = Pack(key, *columns[1:]).rows()  # type: ignore[arg-type]
        shared_crc(*rows[0][1:6])  # raises if no checksum can be computed
        return rows
    return []


@contextlib.contextmanager
def _content(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Open a data file and its log, either of which may be missing."""
    log = Path(f"{path}-wal")
    kept = log.read_bytes() if log.exists() else b""
    if not path.exists() or path.stat().st_size == 0:
        yield b"", kept
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield cast(bytes, data), kept  # a map can be cut as bytes can
