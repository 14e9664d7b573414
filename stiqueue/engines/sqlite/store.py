"""A data file opened for writing: rows with checksums, one transaction at a time. Knows no queue rules.

Not thread-safe: used by one thread after it was opened. Python's sqlite3 releases the interpreter lock at each step of
a statement, and a busy event loop can then hold it for milliseconds: next to one, 1,000 rows took 240 ms by
`executemany` and 18 ms in one statement. So many rows are always written in one step.
"""

from __future__ import annotations

import ctypes
import os
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from stiqueue.engines.sqlite.claim import sync_directory
from stiqueue.engines.sqlite.keys import MOST_KEYS, marks, parts, runs
from stiqueue.engines.sqlite.packs import ONE_STEP, PART_BYTES, SIZES, Pack, lists_of, repack, split
from stiqueue.engines.sqlite.rows import ID_BITS, LaneRow, RequestRow, Row, SettingRow
from stiqueue.engines.sqlite.schema import GONE_BEFORE, GONE_FROM, SCHEMA_VERSION, SETTING_TABLE, UNIQUE_INDEX
from stiqueue.engines.sqlite.tables import Tables
from stiqueue.errors import StoreDamaged
from stiqueue.rules.recent import REMEMBERED_SECONDS

LOG_BYTES = 16 << 20
"""The size to which the write-ahead log is cut after a large transaction."""

_END = 1 << 62
_MANY = 100
"""The number of consecutive messages from which they are deleted as a range, without a look at each."""
_DELETE_ALONE = f"DELETE FROM message WHERE key = ? AND length(parts) = {PART_BYTES}"
_COUNTERS = ("messages", "bytes", "last_id", "seq", "crc", "gone_from", "gone_before")
_UPDATE_LANE = f"UPDATE lane SET {', '.join(f'{name} = ?' for name in _COUNTERS)} WHERE no = ?"


class Store(Tables):
    """One open data file."""

    def __init__(self, path: Path, sync: bool = True) -> None:
        """Open `path`, which exists (see `stiqueue.engines.sqlite.schema.create`) and has been checked.

        Args:
            path: the file; nobody else may have it open.
            sync: whether a transaction is on the disk when it ends; False: whenever the operating system writes it.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
        super().__init__(
            path,
            "rw",
            "locking_mode = EXCLUSIVE",
            f"synchronous = {'FULL' if sync else 'OFF'}",
            # On macOS a sync leaves data in the cache of the disk, which a power cut empties. Elsewhere: no effect.
            "fullfsync = ON",
            # Some builds of SQLite overwrite deleted rows with zeros, which makes an ack as expensive as its message.
            "secure_delete = OFF",
            # `Space` does it: after the messages are confirmed, and with visible errors.
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {LOG_BYTES}",
        )
        if self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            self.close()
            raise StoreDamaged(f"{path}: has lost its mode")
        self._upgrade()

    def _upgrade(self) -> None:
        """Bring a file of an older version to the newest, or leave it as it is."""
        version = self._version
        if version < SCHEMA_VERSION:
            with self.transaction():
                if version < 2:
                    self._db.execute(SETTING_TABLE)
                if version < 3:
                    self._db.execute(UNIQUE_INDEX)
                for column in (GONE_FROM, GONE_BEFORE):
                    self._db.execute(f"ALTER TABLE lane ADD COLUMN {column}")
                self._db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._version = SCHEMA_VERSION

    @property
    def connection(self) -> object:
        """The connection, which must not be closed in a fork of this process."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside, or nothing. SQLite's errors pass through."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def abandon(self) -> None:
        """Never close the file: after a failed sync nobody knows how much of the log is on the disk."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))

    def copy_to(self, path: Path) -> None:
        """Copy the file to a new one at `path`, synced. OSError and SQLite's errors pass through."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        copy = sqlite3.connect(path)
        try:
            self._db.backup(copy)
        finally:
            copy.close()
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(path)

    # -- writing ------------------------------------------------------------------------------------------------------

    def insert(self, packs: Sequence[Pack]) -> None:
        """Insert new messages."""
        self._in_one("INSERT INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", packs)

    def keep(self, rows: Iterable[Row]) -> None:
        """Insert messages of another file, unless their keys exist."""
        packs = [pack for row in rows for pack in repack([row])]
        self._in_one("INSERT OR IGNORE INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", packs)

    def change(self, removed: Sequence[Sequence[int]], updated: Mapping[int, Row], lanes: Mapping[int, LaneRow]) -> int:
        """Delete messages by their keys, and rewrite others, if they still exist.

        Args:
            removed: keys of messages to delete.
            updated: the new rows of others, by their keys.
            lanes: by number, those of messages to delete, and of other messages that may be in a pack that is not
                whole. The caller saves them: they learn of a pack whose first messages are gone, instead of writing
                the rest anew.

        Returns:
            The number of places in the file that changed.

        Raises:
            StoreDamaged: a message to delete is missing.
        """
        is_single = not updated and len(removed) == 1 and len(removed[0]) == 1
        if is_single and self._db.execute(_DELETE_ALONE, (removed[0][0],)).rowcount:
            return 1  # it came alone: there is no rest to write anew
        places = found = 0
        long: list[range] = []
        others: set[int] = set()
        for keys in removed:
            if isinstance(keys, range) and len(keys) >= _MANY:
                long.append(keys)
            else:
                others.update(keys)
        gone: set[int] = set()
        for run in chain(long, runs(sorted(others))):
            if len(run) >= _MANY:
                count, rest = self._delete_inside(run)
                places += 1
                found += count
                gone.update(rest)
            else:
                gone.update(run)
        whole: list[int] = []
        partly: list[int] = []
        for key, count in self._covering(sorted(gone | updated.keys())):
            lane, inside = lanes.get(key >> ID_BITS), range(key, key + count)
            left = inside if lane is None else lane.left_of(inside)
            going = len(gone.intersection(left))
            found += going
            if going == len(left):
                whole.append(key)
            elif updated.keys().isdisjoint(left) and (
                not going or (lane and gone.issuperset(left[:going]) and lane.begin(inside, left[going:]))
            ):
                continue  # the row stays as it is
            else:
                partly.append(key)
            if lane and len(left) < count:
                gone.update(inside[: -len(left)])
                lane.forget_gone()
        if found != (asked := sum(map(len, removed))):
            raise StoreDamaged(f"{self.path}: {asked - found} of {asked} messages to remove are missing")
        with self._reporting():
            rows = [row for pack in self._packs_at(partly) for row in pack.rows() if row.key not in gone]
        for part in parts([*whole, *partly]):
            self._db.execute(f"DELETE FROM message WHERE key IN ({marks(part)})", part)
        self.insert(repack(updated.get(row.key, row) for row in rows))
        return places + len(whole) + len(partly)

    def _delete_inside(self, keys: range) -> tuple[int, list[int]]:
        """Delete the packs that lie inside a run of keys; return the number of messages, and the remaining keys."""
        ends = keys[0], keys[-1] + 1
        where = f"key BETWEEN ?1 AND ?2 AND key + length(parts) / {PART_BYTES} <= ?2"
        extent = f"total(length(parts)) / {PART_BYTES}, min(key), max(key + length(parts) / {PART_BYTES})"
        count, low, high = self._db.execute(f"SELECT {extent} FROM message WHERE {where}", ends).fetchone()
        if not count:
            return 0, list(keys)
        self._db.execute(f"DELETE FROM message WHERE {where}", ends)
        return int(count), [*range(keys[0], low), *range(high, keys[-1] + 1)]

    def _covering(self, keys: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Return the first key and the number of messages of each pack that contains one of `keys`."""
        before = "(SELECT max(key) FROM message WHERE key <= column1)"
        last = -1
        for part in parts(keys):
            given = ",".join(["(?)"] * len(part))
            found = self._db.execute(SIZES.format(f"key IN (SELECT {before} FROM (VALUES {given}))"), (*part, -1))
            starts, counts, _ = lists_of(found.fetchone())
            for start, count in zip(starts, counts, strict=True):
                if start > last:  # else it was the last of the part before, too
                    last = start
                    yield start, count

    def _packs_at(self, keys: Sequence[int]) -> Iterator[Pack]:
        """Return the packs whose first key is one of `keys`."""
        for part in parts(keys):
            where = f"key IN ({marks(part)})"
            yield from split(self._db.execute(ONE_STEP.format(where), (*part, -1)).fetchone())

    def save_lanes(self, lanes: Collection[LaneRow]) -> None:
        """Write the counters of old and new lanes."""
        if len(lanes) == 1:
            (lane,) = lanes
            no, _, _, *counters = lane.columns()
            if self._db.execute(_UPDATE_LANE, (*counters, no)).rowcount:
                return
        # Not INSERT OR REPLACE, which would write the index anew as well.
        update = f" ON CONFLICT (no) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _COUNTERS)}"
        rows = [lane.columns() for lane in lanes]
        self._in_one("INSERT INTO lane VALUES ", "(?,?,?,?,?,?,?,?,?,?)", update, rows)

    def delete_lanes(self, numbers: Iterable[int]) -> None:
        """Delete lanes, which have no messages."""
        self._in_one("DELETE FROM lane WHERE no IN (", "?", ")", [(number,) for number in numbers])

    def remember(self, requests: Iterable[RequestRow], oldest_ms: int | None = None) -> None:
        """Write request ids, and delete those from before `oldest_ms`, if it is given."""
        rows = [(*each, each.crc()) for each in requests]
        if rows:
            names = "queue, request_id, first_id, count, time_ms, crc"
            self._in_one(f"INSERT INTO request ({names}) VALUES ", "(?,?,?,?,?,?)", "", rows)
            if oldest_ms is not None:
                self._forget(oldest_ms)

    def forget(self, oldest_ms: int) -> bool:
        """Delete request ids from before `oldest_ms`; return whether others are left."""
        self._forget(oldest_ms)
        return self._db.execute("SELECT 1 FROM request LIMIT 1").fetchone() is not None

    def _forget(self, oldest_ms: int) -> None:
        """Delete the rows before the first recent one; rows from the future date from before a clock was set back."""
        first = "SELECT no FROM request WHERE time_ms BETWEEN ? AND ? ORDER BY no LIMIT 1"
        newest_ms = oldest_ms + int(2_000 * REMEMBERED_SECONDS)
        self._db.execute(f"DELETE FROM request WHERE no < ifnull(({first}), {_END})", (oldest_ms, newest_ms))

    def save_settings(self, settings: Iterable[SettingRow]) -> None:
        """Write the settings of queues and patterns, and forget those that set nothing."""
        names = "pattern, settings, until_ms, time_ms, crc"
        for row in settings:
            self._db.execute("DELETE FROM setting WHERE pattern = ?", (row.pattern,))
            if row.policy().settings:
                self._db.execute(f"INSERT INTO setting ({names}) VALUES (?,?,?,?,?)", (*row, row.crc()))

    def _in_one(self, head: str, each: str, tail: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute ``head each,each,... tail`` with the values of `rows`.

        The numbers of rows are powers of 2: so few that SQLite prepares each statement once.
        """
        done, left = 0, len(rows)
        while left:
            width = min(MOST_KEYS, 1 << left.bit_length() - 1)
            part = rows[done : done + width] if left > 1 or done else rows
            statement = head + ",".join([each] * width) + tail
            self._db.execute(statement, part[0] if width == 1 else list(chain.from_iterable(part)))
            done, left = done + width, left - width

    # -- space --------------------------------------------------------------------------------------------------------

    def checkpoint(self, cut: bool = False) -> None:
        """Move the write-ahead log into the file; its space is reused, or with `cut` returned to the disk."""
        self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if cut else 'PASSIVE'})").fetchall()

    def free_pages(self) -> int:
        """Return the number of unused pages in the file."""
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def shrink(self, pages: int) -> None:
        """Return up to `pages` unused pages to the disk."""
        # executescript, because execute stops after the first page.
        self._db.executescript(f"PRAGMA incremental_vacuum({pages})")
