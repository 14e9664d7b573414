"""What a data file has, read by SQLite without changing a byte of it: rows with checks. Knows no queue rules.

Not thread-safe: used by one thread after it was opened. SQLite keeps almost no check of its own content, so every row
has one. And Python's sqlite3 gives up the interpreter lock at each step of a statement, after which a busy event loop
keeps it for milliseconds; so many rows are always read in one step.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Collection, Iterator
from operator import ge, itemgetter
from pathlib import Path
from urllib.parse import quote

from stiqueue.engines.packs import AFTER, ONE_STEP, PART_BYTES, SIZES, lists_of, split
from stiqueue.engines.rows import ID_BITS, MAX_ID, LaneRow, RequestRow, Row, first_wrong, read_headers
from stiqueue.engines.schema import PAGE_SIZE, TABLES
from stiqueue.errors import StoreDamaged, StoreError
from stiqueue.limits import headers_size

PAGE_BYTES = 4 << 20
"""Most bytes of bodies that are read at a time; a larger message comes alone."""

NO_MESSAGE = "none"
_MANY = 1_000
_MOST_PACKS = 64
"""Most packs that are looked at for one read: enough for a thousand small messages that came together."""
_LOCK_PAGE = (1 << 30) // PAGE_SIZE + 1
"""The page with SQLite's locks, at 1 GiB, which is never written."""
_MACHINE = ("locked", "unable to open", "I/O", "full", "readonly", "protocol", "denied")
"""Words of SQLite's errors that are about the machine, not about the content."""
_GARBAGE = (ValueError, TypeError, OverflowError, AssertionError, struct.error)
"""What making sense of damaged rows raises; a UnicodeDecodeError is a ValueError."""


class View:
    """One data file, open for reading."""

    def __init__(self, path: Path) -> None:
        """Open `path` and its log, neither of which is changed; nobody else may have it open.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
        # Without a log the file is all there is. To read a log SQLite makes an index beside it, for a while.
        logged = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
        self._index = Path(f"{path}-shm") if logged else None
        self._kept_index = self._index.read_bytes() if self._index and self._index.exists() else None
        self._open(path, "ro" if logged else "ro&immutable=1")

    def _open(self, path: Path, mode: str, *pragmas: str) -> None:
        """Open the file as `mode` says, and see that it has its tables."""
        self.path = path
        with self._reporting():
            self._db = sqlite3.connect(
                f"file:{quote(os.fsencode(path))}?mode={mode}",
                uri=True,
                timeout=0.1,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=128,
            )
            try:
                for pragma in pragmas:
                    self._db.execute(f"PRAGMA {pragma}")
                tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables < TABLES:
                    raise StoreDamaged(f"{path}: has lost its tables")
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Turn SQLite's word for damage into ours."""
        try:
            yield
        except sqlite3.OperationalError as error:
            if any(word in str(error) for word in _MACHINE):
                raise StoreError(f"{self.path}: {error}") from error
            raise StoreDamaged(f"{self.path}: {error}") from error
        except (sqlite3.DatabaseError, *_GARBAGE) as error:
            raise StoreDamaged(f"{self.path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        if self._index is not None:
            if self._kept_index is None:
                self._index.unlink(missing_ok=True)
            else:
                self._index.write_bytes(self._kept_index)

    def lanes(self) -> list[LaneRow]:
        """Return all lanes, checked."""
        with self._reporting():
            rows = self._db.execute("SELECT * FROM lane ORDER BY no").fetchall()
            lanes = [LaneRow(*row[:-1]) for row in rows]
        for lane, row in zip(lanes, rows, strict=True):
            if lane.crc() != row[-1]:
                raise StoreDamaged(f"{self.path}: the counters of lane {lane.no} are damaged")
        return lanes

    def requests(self) -> list[RequestRow]:
        """Return the remembered requests, checked."""
        with self._reporting():
            rows = self._db.execute("SELECT * FROM request ORDER BY no").fetchall()
            requests = [RequestRow(*row[1:-1]) for row in rows]
        if any(request.crc() != row[-1] for request, row in zip(requests, rows, strict=True)):
            raise StoreDamaged(f"{self.path}: a remembered request id is damaged")
        return requests

    def delayed(self) -> list[Row]:
        """Return all messages with a due time, checked."""
        # By the index, which SQLite would not choose: there may be millions of others.
        select = "SELECT group_concat(key) FROM message INDEXED BY delayed WHERE due_ms IS NOT NULL"
        with self._reporting():
            found = self._db.execute(select).fetchone()[0]
            keys = sorted(map(int, found.split(","))) if found else []
        rows: list[Row] = []
        for start in range(0, len(keys), _MOST_PACKS):
            part = keys[start : start + _MOST_PACKS]
            read: list[Row] = []
            while not read or read[-1].key < part[-1]:
                more = self._rows(read[-1].key if read else part[0] - 1, f"key IN ({','.join(map(str, part))})")
                if not more:
                    break
                read += more
            if {row.key for row in read}.issuperset(part) and all(row.due_ms is not None for row in read):
                rows += read
                continue
            raise StoreDamaged(f"{self.path}: a delayed message is missing", last_good=self.name(part[0] - 1))
        return rows

    def page(self, lane_no: int, after_id: int, limit: int) -> list[Row]:
        """Return up to `limit` messages of a lane with greater ids and without a due time, in order, checked."""
        base = lane_no << ID_BITS
        return self._rows(base | after_id, f"key <= {base | MAX_ID} AND due_ms IS NULL", limit)

    def every(self, after_key: int, limit: int) -> list[Row]:
        """Return up to `limit` messages of any lane with greater keys, in order, checked."""
        return self._rows(after_key, "1", limit)

    def _rows(self, after: int, where: str, limit: int | None = None) -> list[Row]:
        """Return the first messages after a key for whose packs `where` holds: up to `limit`, and not many packs."""
        try:
            return self._read(after, where, limit)
        except StoreDamaged as error:
            key = after
            with contextlib.suppress(StoreError):
                while row := self._read(key, where, 1):
                    key = row[0].key
            raise StoreDamaged(str(error), last_good=self.name(key)) from error

    def _read(self, after: int, where: str, limit: int | None) -> list[Row]:
        with self._reporting():
            condition = f"{AFTER} AND {where}"
            most = min(limit or _MOST_PACKS, _MOST_PACKS)
            found = self._db.execute(SIZES.format(condition), (after + 1, most)).fetchone()
            _, counts, sizes = lists_of(found)
            few = messages = size = 0
            for count, length in zip(counts, sizes, strict=True):
                size += length
                if few and (size > PAGE_BYTES or (limit is not None and messages >= limit)):
                    break
                messages += count
                few += 1
            packs = split(self._db.execute(ONE_STEP.format(condition), (after + 1, few)).fetchone()) if few else []
            parts = [pack.rows()[max(0, after + 1 - pack.key) :] for pack in packs]
        rows: list[Row] = []
        for part in parts:
            asked = part[: None if limit is None else limit - len(rows)]
            if asked and (wrong := first_wrong(asked)) is not None:
                raise StoreDamaged(f"{self.path}: message {wrong.id} is damaged")
            rows += asked
        keys = [after, *map(itemgetter(0), rows)]
        if any(map(ge, keys, keys[1:])):
            raise StoreDamaged(f"{self.path}: messages are out of order")
        return rows

    def name(self, key: int) -> str:
        """Say which message has a key: its id and its queue."""
        if key < 0 or not key & MAX_ID:
            return NO_MESSAGE
        with contextlib.suppress(StoreError), self._reporting():
            found = self._db.execute("SELECT queue FROM lane WHERE no = ?", (key >> ID_BITS,)).fetchone()
            if found:
                return f"{key & MAX_ID} of {found[0]}"
        return str(key & MAX_ID)

    def last_given(self) -> str:
        """Say which id was the last that the last transaction knows of, and in which queue."""
        lane = max(self.lanes(), key=lambda lane: (bool(lane.queue), lane.seq), default=None)
        return f"{lane.last_id} of {lane.queue}" if lane and lane.queue and lane.last_id else NO_MESSAGE

    def last_in_order(self) -> str:
        """Say which message is the last before the first that cannot be read."""
        key = -1
        try:
            while rows := self.every(key, _MANY):
                key = rows[-1].key
        except StoreDamaged as error:
            return error.last_good
        return self.name(key)

    def missing_page(self, log: Collection[int]) -> int:
        """Return the first page that is neither in the file nor among those in the log; 0: all are there."""
        with self._reporting():
            pages = int(self._db.execute("PRAGMA page_count").fetchone()[0])
        there = os.path.getsize(self.path) // PAGE_SIZE
        return next((page for page in range(there + 1, pages + 1) if page not in log and page != _LOCK_PAGE), 0)

    def totals(self) -> dict[int, tuple[int, int, int]]:
        """Count the messages by lane; return how many each has, their bytes, and the highest id."""
        totals: dict[int, tuple[int, int, int]] = {}
        lane, count = f"key >> {ID_BITS}", f"length(parts) / {PART_BYTES}"
        select = f"SELECT {lane}, sum({count}), sum(length(bodies)), max(key + {count} - 1) FROM message GROUP BY 1"
        for no, messages, size, last_key in self._db.execute(select).fetchall():
            totals[no] = messages, size, last_key & MAX_ID
        for no, number, headers in self._db.execute(
            f"SELECT {lane}, {count}, headers FROM message WHERE headers IS NOT NULL"
        ):
            messages, size, last_id = totals[no]
            totals[no] = messages, size + number * headers_size(read_headers(headers)), last_id
        return totals

    def integrity(self) -> None:
        """Let SQLite check the structure of the whole file.

        Raises:
            StoreDamaged: with what SQLite found first.
        """
        with self._reporting():
            answer = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise StoreDamaged(f"{self.path}: {one_line(answer)}")


def one_line(text: str) -> str:
    """Return what SQLite says in several lines as one."""
    return " ".join(text.replace("*** in database main ***", "").split())
