"""The SQLite file that is written: rows with checks, one transaction at a time. Knows no queue rules.

Not thread-safe: used by one thread after it was opened. Python's sqlite3 gives up the interpreter lock at each step of
a statement, after which a busy event loop keeps it for milliseconds: beside one, 1,000 rows by `executemany` took
240 ms and in one statement of 1,000 rows 18 ms. So many rows are always written in one step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, groupby, repeat
from pathlib import Path

from stiqueue.dedup import REMEMBERED_SECONDS
from stiqueue.engines.packs import ONE_STEP, PART_BYTES, SIZES, Pack, lists_of, repacked, split
from stiqueue.engines.rows import LaneRow, RequestRow, Row
from stiqueue.engines.view import View
from stiqueue.errors import StoreDamaged

LOG_BYTES = 16 << 20
"""What is left of the write-ahead log after a large transaction."""

_MOST = 1_024
"""How many rows or keys one statement has at most."""
_WIDTHS = tuple(1 << bit for bit in range(_MOST.bit_length() - 1, -1, -1))
"""How many rows a statement has: few different numbers, so that SQLite prepares each once."""
_END = 1 << 62
_MANY = 100
"""From so many consecutive messages on, what is between the first and the last is deleted without a look at each."""


class Store(View):
    """One open data file."""

    def __init__(self, path: Path, sync: bool = True) -> None:
        """Open `path`, which exists (see `stiqueue.engines.schema.create`) and was checked.

        Args:
            path: the file; nobody else may have it open.
            sync: whether a transaction is on the disk when it ends; otherwise when the operating system sees fit.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
        self._index = None
        self._open(
            path,
            "rw",
            "locking_mode = EXCLUSIVE",
            f"synchronous = {'FULL' if sync else 'OFF'}",
            # Some builds of SQLite write zeros over all that is deleted, as much for acks as was written for messages.
            "secure_delete = OFF",
            # By hand instead: after the messages are confirmed, and so that an error shows.
            "wal_autocheckpoint = 0",
            f"journal_size_limit = {LOG_BYTES}",
        )
        if self._db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
            self.close()
            raise StoreDamaged(f"{path}: has lost its mode")

    @property
    def connection(self) -> object:
        """What must not be closed in a fork of this process."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Make everything inside happen, or nothing of it. SQLite's errors pass through."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the file; what is in the write-ahead log moves into it."""
        super().close()

    def abandon(self) -> None:
        """Never close the file: after a failed sync nobody knows what of the log is on the disk, so it stays there."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._db))

    # -- writing ------------------------------------------------------------------------------------------------------

    def insert(self, packs: Sequence[Pack]) -> None:
        """Insert new messages."""
        self._in_one("INSERT INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", packs)

    def keep(self, rows: Iterable[Row]) -> None:
        """Insert messages as they were elsewhere, those that are not there yet."""
        packs = [pack for row in rows for pack in repacked([row])]
        self._in_one("INSERT OR IGNORE INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", packs)

    def change(self, removed: Sequence[Sequence[int]], updated: Mapping[int, Row]) -> int:
        """Delete messages by their keys, and write others anew, those that are still there.

        Returns:
            In how many places of the file.

        Raises:
            StoreDamaged: one of those to delete is not there.
        """
        places = found = 0
        long: list[range] = []
        others: set[int] = set()
        for keys in removed:
            if isinstance(keys, range) and len(keys) >= _MANY:
                long.append(keys)
            else:
                others.update(keys)
        gone: set[int] = set()
        for run in chain(long, _runs(sorted(others))):
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
            inside = range(key, key + count)
            going = len(gone.intersection(inside))
            found += going
            if going and going == count:
                whole.append(key)
            elif going or not updated.keys().isdisjoint(inside):
                partly.append(key)
        if found != (asked := sum(map(len, removed))):
            raise StoreDamaged(f"{self.path}: {asked - found} of {asked} messages to remove are missing")
        with self._reporting():
            rows = [row for pack in self._packs_at(partly) for row in pack.rows() if row.key not in gone]
        for part in _parts([*whole, *partly]):
            self._db.execute(f"DELETE FROM message WHERE key IN ({_marks(part)})", part)
        self.insert(repacked(updated.get(row.key, row) for row in rows))
        return places + len(whole) + len(partly)

    def _delete_inside(self, keys: range) -> tuple[int, list[int]]:
        """Delete the packs that begin and end in a run of keys; return how many messages, and which keys are left."""
        ends = keys[0], keys[-1] + 1
        where = f"key BETWEEN ?1 AND ?2 AND key + length(parts) / {PART_BYTES} <= ?2"
        extent = f"total(length(parts)) / {PART_BYTES}, min(key), max(key + length(parts) / {PART_BYTES})"
        count, low, high = self._db.execute(f"SELECT {extent} FROM message WHERE {where}", ends).fetchone()
        if not count:
            return 0, list(keys)
        self._db.execute(f"DELETE FROM message WHERE {where}", ends)
        return int(count), [*range(keys[0], low), *range(high, keys[-1] + 1)]

    def _covering(self, keys: Sequence[int]) -> Iterator[tuple[int, int]]:
        """Return where the packs begin that have messages with `keys`, if any has, and how many each has."""
        before = "(SELECT max(key) FROM message WHERE key <= column1)"
        last = -1
        for part in _parts(keys):
            given = ",".join(["(?)"] * len(part))
            found = self._db.execute(SIZES.format(f"key IN (SELECT {before} FROM (VALUES {given}))"), (*part, -1))
            starts, counts, _ = lists_of(found.fetchone())
            for start, count in zip(starts, counts, strict=True):
                if start > last:  # else it was the last of the part before, too
                    last = start
                    yield start, count

    def _packs_at(self, keys: Sequence[int]) -> Iterator[Pack]:
        """Return the packs that begin at `keys`."""
        for part in _parts(keys):
            where = f"key IN ({_marks(part)})"
            yield from split(self._db.execute(ONE_STEP.format(where), (*part, -1)).fetchone())

    def save_lanes(self, lanes: Iterable[LaneRow]) -> None:
        """Write the counters of lanes, new ones included."""
        rows = [(x.no, x.queue, x.priority, x.messages, x.bytes, x.last_id, x.seq, x.crc()) for x in lanes]
        # Not INSERT OR REPLACE, which would write the index anew as well.
        names = ("messages", "bytes", "last_id", "seq", "crc")
        update = f" ON CONFLICT (no) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in names)}"
        self._in_one("INSERT INTO lane VALUES ", "(?,?,?,?,?,?,?,?)", update, rows)

    def delete_lanes(self, numbers: Iterable[int]) -> None:
        """Forget lanes, which have no messages."""
        self._in_one("DELETE FROM lane WHERE no IN (", "?", ")", [(number,) for number in numbers])

    def remember(self, requests: Iterable[RequestRow], oldest_ms: int | None = None) -> None:
        """Write request ids, and forget those from before `oldest_ms`, if it is given."""
        rows = [(*each, each.crc()) for each in requests]
        if rows:
            names = "queue, request_id, first_id, count, time_ms, crc"
            self._in_one(f"INSERT INTO request ({names}) VALUES ", "(?,?,?,?,?,?)", "", rows)
            if oldest_ms is not None:
                self._forget(oldest_ms)

    def forget(self, oldest_ms: int) -> bool:
        """Forget request ids from before `oldest_ms`; return whether there are others."""
        self._forget(oldest_ms)
        return self._db.execute("SELECT 1 FROM request LIMIT 1").fetchone() is not None

    def _forget(self, oldest_ms: int) -> None:
        """Delete the first rows, up to one that is not older; those from the future are from before a clock was set."""
        first = "SELECT no FROM request WHERE time_ms BETWEEN ? AND ? ORDER BY no LIMIT 1"
        newest_ms = oldest_ms + int(2_000 * REMEMBERED_SECONDS)
        self._db.execute(f"DELETE FROM request WHERE no < ifnull(({first}), {_END})", (oldest_ms, newest_ms))

    def _in_one(self, head: str, each: str, tail: str, rows: Sequence[Sequence[object]]) -> None:
        """Execute ``head each,each,... tail`` with the values of `rows`."""
        done = 0
        for width in _WIDTHS:
            while len(rows) - done >= width:
                part = rows[done : done + width]
                statement = head + ",".join([each] * width) + tail
                self._db.execute(statement, list(chain.from_iterable(part)))
                done += width

    # -- space --------------------------------------------------------------------------------------------------------

    def checkpoint(self, cut: bool = False) -> None:
        """Move what is in the write-ahead log into the file; the space is used again, or with `cut` given back."""
        self._db.execute(f"PRAGMA wal_checkpoint({'TRUNCATE' if cut else 'PASSIVE'})").fetchall()

    def free_pages(self) -> int:
        """Return how many pages of the file are unused."""
        return int(self._db.execute("PRAGMA freelist_count").fetchone()[0])

    def shrink(self, pages: int) -> None:
        """Give up to `pages` unused pages back to the disk."""
        # executescript, because execute stops after the first page.
        self._db.executescript(f"PRAGMA incremental_vacuum({pages})")


def _runs(keys: Sequence[int]) -> Iterator[range]:
    """Return the runs of consecutive numbers in `keys`, which rise."""
    for _, numbered in groupby(enumerate(keys), lambda each: each[1] - each[0]):
        same = [key for _, key in numbered]
        yield range(same[0], same[-1] + 1)


def _parts(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """Return lists of at most _MOST keys, the last one repeated: of so few lengths that SQLite knows the statements."""
    for start in range(0, len(keys), _MOST):
        part = keys[start : start + _MOST]
        yield [*part, *repeat(part[-1], (1 << (len(part) - 1).bit_length()) - len(part))]


def _marks(values: Sequence[object]) -> str:
    return ",".join("?" * len(values))
