"""The SQLite file that is written: rows with checks, one transaction at a time. Knows no queue rules.

Not thread-safe: used by one thread after it was opened. Python's sqlite3 gives up the interpreter lock at each step of
a statement, after which a busy event loop keeps it for milliseconds: beside one, 1,000 rows by `executemany` took
240 ms and in one statement of 1,000 rows 18 ms. So many rows are always written in one step.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, repeat
from pathlib import Path

from stiqueue.engines.rows import LaneRow, RequestRow, Row, row_crc, shared_crc
from stiqueue.engines.view import View
from stiqueue.errors import StoreDamaged

LOG_BYTES = 16 << 20
"""What is left of the write-ahead log after a large transaction."""

_WIDTHS = (1_000, 100, 10, 1)
"""How many rows one statement has; few different ones, so that SQLite prepares each once."""


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

    def insert(self, keys: Sequence[int], bodies: Sequence[bytes], like: Row) -> None:
        """Insert new messages that have everything but key, check and body in common with `like`."""
        shared = shared_crc(like.time_ms, like.attempt, like.due_ms, like.expires_ms, like.headers)
        crcs = [row_crc(shared, key, body) for key, body in zip(keys, bodies, strict=True)]
        if like.due_ms is None and like.expires_ms is None and like.headers is None and not like.attempt:
            rows: Iterator[Sequence[object]] = zip(keys, repeat(like.time_ms), crcs, bodies, strict=False)
            self._in_one("INSERT INTO message (key, time_ms, crc, body) VALUES ", "(?,?,?,?)", "", list(rows))
        else:
            full = [
                (key, like.time_ms, like.attempt, like.due_ms, like.expires_ms, like.headers, crc, body)
                for key, crc, body in zip(keys, crcs, bodies, strict=True)
            ]
            self._in_one("INSERT INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", full)

    def keep(self, rows: Sequence[Row]) -> None:
        """Insert messages as they were elsewhere, those that are not there yet."""
        self._in_one("INSERT OR IGNORE INTO message VALUES ", "(?,?,?,?,?,?,?,?)", "", rows)

    def delete(self, keys: Sequence[int]) -> int:
        """Delete messages, runs of consecutive keys in one step each; return how many runs there were.

        Raises:
            StoreDamaged: one of them is not there.
        """
        single: list[Sequence[object]] = []
        runs = deleted = 0
        for first, last in _runs(sorted(keys)):
            runs += 1
            if last - first < 2:
                single.extend((key,) for key in range(first, last + 1))
            else:
                deleted += self._db.execute("DELETE FROM message WHERE key BETWEEN ? AND ?", (first, last)).rowcount
        deleted += self._in_one("DELETE FROM message WHERE key IN (", "?", ")", single)
        if deleted != len(keys):
            raise StoreDamaged(f"{self.path}: {len(keys) - deleted} of {len(keys)} messages to remove are missing")
        return runs

    def update(self, rows: Iterable[Row]) -> None:
        """Write attempt, due time and check of messages, those that are still there."""
        values = [(row.key, row.attempt, row.due_ms, row.crc) for row in rows]
        self._in_one(
            "UPDATE message SET attempt = new.column2, due_ms = new.column3, crc = new.column4 FROM (VALUES ",
            "(?,?,?,?)",
            ") AS new WHERE message.key = new.column1",
            values,
        )

    def save_lanes(self, lanes: Iterable[LaneRow]) -> None:
        """Write the counters of lanes, new ones included."""
        rows = [(x.no, x.queue, x.priority, x.messages, x.bytes, x.last_id, x.seq, x.crc()) for x in lanes]
        self._in_one("INSERT OR REPLACE INTO lane VALUES ", "(?,?,?,?,?,?,?,?)", "", rows)

    def delete_lanes(self, numbers: Iterable[int]) -> None:
        """Forget lanes, which have no messages."""
        self._in_one("DELETE FROM lane WHERE no IN (", "?", ")", [(number,) for number in numbers])

    def remember(self, requests: Iterable[RequestRow], oldest_ms: int) -> None:
        """Write request ids, and forget those from before `oldest_ms`."""
        rows = [(*each, each.crc()) for each in requests]
        if rows:
            self._in_one("INSERT OR REPLACE INTO request VALUES ", "(?,?,?,?,?,?)", "", rows)
            self._db.execute("DELETE FROM request WHERE time_ms < ?", (oldest_ms,))

    def forget(self, oldest_ms: int) -> bool:
        """Forget request ids from before `oldest_ms`; return whether there are others."""
        self._db.execute("DELETE FROM request WHERE time_ms < ?", (oldest_ms,))
        return self._db.execute("SELECT 1 FROM request LIMIT 1").fetchone() is not None

    def _in_one(self, head: str, each: str, tail: str, rows: Sequence[Sequence[object]]) -> int:
        """Execute ``head each,each,... tail`` with the values of `rows`; return how many rows of the file changed."""
        done = changed = 0
        for width in _WIDTHS:
            while len(rows) - done >= width:
                part = rows[done : done + width]
                statement = head + ",".join([each] * width) + tail
                changed += self._db.execute(statement, list(chain.from_iterable(part))).rowcount
                done += width
        return changed

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


def _runs(keys: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Return the runs of consecutive numbers in rising `keys`, as (first, last)."""
    if not keys:
        return
    if keys[-1] - keys[0] == len(keys) - 1:  # as it usually is
        yield keys[0], keys[-1]
        return
    first = last = keys[0]
    for key in keys[1:]:
        if key > last + 1:
            yield first, last
            first = key
        last = key
    yield first, last
