"""The rows of a data file, read and checked. Knows no queue rules.

Not thread-safe: used by one thread after it was opened. SQLite has almost no checksums, so every row has one. Python's
sqlite3 releases the interpreter lock at each step of a statement, and a busy event loop can then hold it for
milliseconds; so many rows are always read in one step.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Iterator, Sequence
from operator import ge, itemgetter
from pathlib import Path
from urllib.parse import quote

from stiqueue.engines.local.change import LaneName
from stiqueue.engines.sqlite.packs import AFTER, LANES_WITH, ONE_STEP, PART_BYTES, SIZES, lists_of, split
from stiqueue.engines.sqlite.rows import (
    ID_BITS,
    KEY_MARK,
    MAX_ID,
    LaneRow,
    RequestRow,
    Row,
    SettingRow,
    first_wrong,
    read_headers,
    read_unique_key,
)
from stiqueue.engines.sqlite.schema import TABLES, UNIQUE_KEYS
from stiqueue.errors import StoreDamaged, StoreError
from stiqueue.limits import headers_size

READ_BYTES = 4 << 20
"""The most bytes of bodies that are read at a time; a larger message comes alone."""

NO_MESSAGE = "none"
_MANY = 1_000
_MOST_PACKS = 64
"""The most packs for one read: enough for a thousand small messages that came together."""
_MACHINE = ("locked", "unable to open", "I/O", "full", "readonly", "protocol", "denied")
"""Words in SQLite's errors that are about the machine, not about the contents."""
_GARBAGE = (ValueError, TypeError, OverflowError, AssertionError, struct.error)
"""The exceptions that parsing damaged rows raises; a UnicodeDecodeError is a ValueError."""


class Tables:
    """The tables of one data file, over an open connection."""

    def __init__(self, path: Path, mode: str, *pragmas: str) -> None:
        """Connect to the file at `path` as `mode` says (SQLite's, as in a URI), and see that it has its tables.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
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
                (self._version,) = self._db.execute("PRAGMA user_version").fetchone()
                tables = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if tables < TABLES:
                    raise StoreDamaged(f"{path}: has lost its tables")
            except BaseException:
                self.close()
                raise

    @contextlib.contextmanager
    def _reporting(self) -> Iterator[None]:
        """Raise SQLite's errors as `StoreError`, or as `StoreDamaged` if they report damage."""
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

    def lanes(self) -> list[LaneRow]:
        """Return all lanes, checked."""
        with self._reporting():
            lanes = []
            for row in self._db.execute("SELECT * FROM lane ORDER BY no").fetchall():
                lane = LaneRow.of(row)
                if lane is None:
                    raise StoreDamaged(f"{self.path}: the counters of lane {row[0]} are damaged")
                lanes.append(lane)
        return lanes

    def requests(self) -> list[RequestRow]:
        """Return the remembered requests, checked."""
        with self._reporting():
            rows = self._db.execute("SELECT * FROM request ORDER BY no").fetchall()
            requests = [RequestRow(*row[1:-1]) for row in rows]
        if any(request.crc() != row[-1] for request, row in zip(requests, rows, strict=True)):
            raise StoreDamaged(f"{self.path}: a remembered request id is damaged")
        return requests

    def settings(self) -> list[SettingRow]:
        """Return the settings of queues and patterns, checked."""
        with self._reporting():
            if self._version < 2:  # which had none, and is only looked at
                return []
            rows = self._db.execute("SELECT * FROM setting ORDER BY no").fetchall()
            settings = [SettingRow(*row[1:-1]) for row in rows]
        if any(setting.crc() != row[-1] for setting, row in zip(settings, rows, strict=True)):
            raise StoreDamaged(f"{self.path}: the settings of a queue are damaged")
        return settings

    def unique_keys(self) -> list[tuple[int, str, int | None]]:
        """Return (key, unique key, end of the ttl) of all messages with a unique key, unchecked."""
        columns = "group_concat(key), group_concat(hex(headers)), group_concat(ifnull(expires_ms, ''))"
        # By the index, in one step; the row itself is checked when it is read.
        select = f"SELECT {columns} FROM message INDEXED BY unique_keys WHERE {UNIQUE_KEYS}"
        with self._reporting():
            found = self._db.execute(select).fetchone()
            if found[0] is None:
                return []
            keys, texts, ends = (column.split(",") for column in found)
            unique = (read_unique_key(bytes.fromhex(text).decode()) for text in texts)
            return [
                (int(key), name, int(end) if end else None) for key, name, end in zip(keys, unique, ends, strict=True)
            ]

    def first_ids(self) -> dict[int, int]:
        """Return for each lane with a key the lowest id of its packs; that message may be gone."""
        lane = f"(SELECT no, no << {ID_BITS} AS base FROM lane WHERE messages AND instr(queue, '{KEY_MARK}'))"
        first = f"(SELECT min(key) FROM message WHERE key BETWEEN base AND base | {MAX_ID})"
        with self._reporting():
            found = self._db.execute(f"SELECT group_concat(no), group_concat(ifnull({first}, 0)) FROM {lane}")
            return {no: key & MAX_ID for no, key in zip(*lists_of(found.fetchone()), strict=True)}

    def delayed(self) -> list[Row]:
        """Return all messages with a due time, checked."""
        # SQLite would not choose the index, although there may be millions of other messages.
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
            left = self._left(part)
            if {row.key for row in read}.issuperset(left.get(key, key) for key in part) and all(
                row.due_ms is not None for row in read
            ):
                rows += read
                continue
            raise StoreDamaged(f"{self.path}: a delayed message is missing", last_good=self.name(part[0] - 1))
        return rows

    def page(self, lane_no: int, after_id: int, limit: int) -> list[Row]:
        """Return up to `limit` messages of a lane with greater ids and without a due time, in order, checked."""
        base = lane_no << ID_BITS
        return self._rows(base | after_id, f"key <= {base | MAX_ID} AND due_ms IS NULL", limit)

    def find(self, queue: str, ids: Sequence[int]) -> tuple[Sequence[int], list[tuple[LaneName, Row]]]:
        """Read messages of a queue by `ids`, those without a due time, up to about READ_BYTES, checked.

        Returns the ids that were looked for, and (lane, message) for each that is there.
        """
        found, size = list[tuple[LaneName, Row]](), 0
        for number, message_id in enumerate(ids):
            if size > READ_BYTES:
                return ids[:number], found
            places = message_id, queue, f"{queue}{KEY_MARK}", f"{queue}{chr(ord(KEY_MARK) + 1)}"
            with self._reporting():
                lanes = self._db.execute(LANES_WITH, places).fetchall()
            for no, place, priority in lanes:
                key = no << ID_BITS | message_id
                for row in self._rows(key - 1, f"key <= {key} AND due_ms IS NULL", 1):
                    if row.key == key:
                        found.append((LaneName(queue, priority, place.partition(KEY_MARK)[2]), row))
                        size += len(row.body)
        return ids, found

    def every(self, after_key: int, limit: int) -> list[Row]:
        """Return up to `limit` messages of any lane with greater keys, in order, checked."""
        return self._rows(after_key, "1", limit)

    def _rows(self, after: int, where: str, limit: int | None = None) -> list[Row]:
        """Return the first messages after a key whose packs satisfy `where`: at most `limit`, from few packs."""
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
                if few and (size > READ_BYTES or (limit is not None and messages >= limit)):
                    break
                messages += count
                few += 1
            packs = split(self._db.execute(ONE_STEP.format(condition), (after + 1, few)).fetchone()) if few else []
            left = self._left([pack.key for pack in packs])
            parts = [pack.rows()[max(0, max(after + 1, left.get(pack.key, 0)) - pack.key) :] for pack in packs]
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

    def _left(self, keys: Sequence[int]) -> dict[int, int]:
        """Return the first key that is left of each pack whose first messages are gone, by the key of the pack.

        `keys` are those of packs, in order; the answer may have other packs of their lanes.
        """
        if not keys or self._version < 4:
            return {}
        select = "SELECT no, gone_from, gone_before FROM lane WHERE gone_before AND no BETWEEN ? AND ?"
        found = self._db.execute(select, (keys[0] >> ID_BITS, keys[-1] >> ID_BITS))
        return {no << ID_BITS | start: no << ID_BITS | stop for no, start, stop in found.fetchall()}

    def name(self, key: int) -> str:
        """Describe the message with a key by its id and its queue."""
        if key < 0 or not key & MAX_ID:
            return NO_MESSAGE
        with contextlib.suppress(StoreError), self._reporting():
            found = self._db.execute("SELECT queue FROM lane WHERE no = ?", (key >> ID_BITS,)).fetchone()
            if found:
                return f"{key & MAX_ID} of {found[0].partition(KEY_MARK)[0]}"
        return str(key & MAX_ID)

    def totals(self) -> dict[int, tuple[int, int, int]]:
        """Return for each lane the number of its messages, their bytes, and the highest id, if all packs are whole."""
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
