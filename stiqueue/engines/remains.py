"""What remains of a damaged data file: every row that proves itself by its check, wherever it stands.

Relies on nothing but single pages, and changes nothing.
"""

from __future__ import annotations

import contextlib
import mmap
import struct
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from stiqueue.engines.packs import Pack
from stiqueue.engines.pages import PageFile, Record, Value
from stiqueue.engines.rows import ID_BITS, MAX_ID, LaneRow, RequestRow, Row, is_right, shared_crc
from stiqueue.engines.view import NO_MESSAGE
from stiqueue.limits import MAX_PRIORITY, queue_name

LOST_QUEUE = "salvaged-{}"
"""Where messages go whose queue is not known any more."""
_NAME_COLUMNS = 3
_GARBAGE = (TypeError, ValueError, OverflowError, struct.error)
"""What making sense of garbage raises; InvalidRequest is a ValueError."""


class Remains:
    """What can be read of a file: its rows, each proved by its check, and what it says of its lanes."""

    def __init__(self, path: Path) -> None:
        """Look at the file and its log, either of which may be missing."""
        self._path = path
        self.lanes: dict[int, LaneRow] = {}
        """The latest known counters of each lane, by number."""
        self.requests: dict[tuple[str, str], RequestRow] = {}
        self.unreadable = 0
        """Rows that could not be read, or whose check was wrong."""
        self.is_ours = False
        """Whether anything says that the file is one of ours, be it empty."""
        self._names: dict[int, tuple[str, int]] = {}
        """Queue and priority of lanes as an index, which has no check, says."""

    def messages(self, carve: bool = True) -> Iterator[Row]:
        """Iterate over all messages, some perhaps twice; learn everything else on the way.

        With `carve` also over those in damaged pages that no header tells of, which takes 0.05 s a page.
        """
        with _content(self._path) as (data, log):
            pages = PageFile(data, log)
            self.is_ours = b"CREATE TABLE lane (" in pages.page(1)
            counted: dict[int, int] = {}
            damaged: set[int] = set()
            for number, record in pages.records():
                unreadable = self.unreadable
                rows = self._understand(record)
                if self.unreadable > unreadable:
                    damaged.add(number)
                for row in rows:
                    counted[row.key >> ID_BITS] = counted.get(row.key >> ID_BITS, 0) + 1
                yield from rows
            # Only where messages are missing: among these are also some that were acked since.
            for record in pages.older():
                for row in self._understand(record):
                    if self._is_missing(row.key >> ID_BITS, counted):
                        yield row
            if not carve or not (counted or self.lanes or self.is_ours):
                return
            for key, columns in pages.carved(damaged | pages.incomplete):
                for row in _messages(key, columns):
                    if is_right(row) and self._is_missing(row.key >> ID_BITS, counted):
                        yield row

    def lost(self, saved: Mapping[int, int]) -> int:
        """Return how many messages are missing when `saved` are there, by lane: as far as is known."""
        missing = sum(max(0, lane.messages - saved.get(no, 0)) for no, lane in self.lanes.items())
        return missing if all(no in self.lanes for no in saved) else max(missing, self.unreadable)

    def last_good(self) -> str:
        """Say which message came last, its id and its queue, when all can be read; else how many of them can."""
        last = {row.key: row.time_ms for row in self.messages(carve=False)}
        lost = self.lost(Counter(key >> ID_BITS for key in last))
        if lost:
            return f"unknown, {len(last)} of {len(last) + lost} messages can be read"
        key = max(last, key=lambda key: (last[key], key), default=None)
        return f"{key & MAX_ID} of {self.name_of(key >> ID_BITS)[0]}" if key else NO_MESSAGE

    def name_of(self, no: int) -> tuple[str, int]:
        """Return queue and priority of a lane."""
        if no in self.lanes:
            return self.lanes[no].queue, self.lanes[no].priority
        taken = {(lane.queue, lane.priority) for lane in self.lanes.values()}
        name = self._names.get(no)
        return name if name and name not in taken else (LOST_QUEUE.format(no), 0)

    def _is_missing(self, no: int, counted: Mapping[int, int]) -> bool:
        return no not in self.lanes or counted.get(no, 0) < self.lanes[no].messages

    def _understand(self, record: Record | None) -> list[Row]:
        """Return the messages of a record, those that are right; learn from it when it is something else."""
        if record is None:
            self.unreadable += 1
            return []
        key, columns = record
        try:
            if key is None:
                self._learn(columns)
            elif rows := _messages(key, columns):
                right = [row for row in rows if is_right(row)]
                self.unreadable += len(rows) - len(right)
                return right
            elif len(columns) == len(Pack._fields):  # of which the counters of a lane have as many
                self._learn_lane(key, columns)
            else:
                self._learn_request(columns)
        except _GARBAGE:
            self.unreadable += 1
        return []

    def _learn_lane(self, key: int, columns: list[Value]) -> None:
        lane = LaneRow(key, *columns[1:-1])  # type: ignore[arg-type]  # its check tells
        if lane.crc() != columns[-1]:
            raise ValueError("neither a message nor the counters of a lane")
        if key not in self.lanes or self.lanes[key].seq < lane.seq:
            self.lanes[key] = lane

    def _learn_request(self, columns: list[Value]) -> None:
        if len(columns) == len(RequestRow._fields) + 2:
            request = RequestRow(*columns[1:-1])  # type: ignore[arg-type]  # its check tells
            known = self.requests.get(request[:2])
            if request.crc() == columns[-1] and (known is None or known.time_ms < request.time_ms):
                self.requests[request[:2]] = request

    def _learn(self, columns: list[Value]) -> None:
        """Learn from a row of an index: the name of a lane."""
        if len(columns) == _NAME_COLUMNS:
            queue, priority, no = columns
            if isinstance(queue, str) and isinstance(priority, int) and isinstance(no, int):
                queue_name(queue)
                if 0 <= priority <= MAX_PRIORITY:
                    self._names[no] = queue, priority


def _messages(key: int | None, columns: list[Value]) -> list[Row]:
    """Return the messages that a row has, unchecked; none when it is something else."""
    if key is None or len(columns) != len(Pack._fields) or not all(isinstance(each, bytes) for each in columns[-2:]):
        return []
    with contextlib.suppress(*_GARBAGE):
        rows = Pack(key, *columns[1:]).rows()  # type: ignore[arg-type]
        shared_crc(*rows[0][1:6])  # raises where a check cannot be made
        return rows
    return []


@contextlib.contextmanager
def _content(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Open what is there of a data file and its log."""
    log = Path(f"{path}-wal")
    kept = log.read_bytes() if log.exists() else b""
    if not path.exists() or path.stat().st_size == 0:
        yield b"", kept
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield cast(bytes, data), kept  # a map can be cut as bytes can
