"""A data file opened for reading, without changing a byte of it."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from stiqueue.engines.sqlite.schema import PAGE_SIZE
from stiqueue.engines.sqlite.tables import NO_MESSAGE, Tables
from stiqueue.errors import StoreDamaged

_LOCK_PAGE = (1 << 30) // PAGE_SIZE + 1
"""The page with SQLite's locks, at 1 GiB, which is never written."""
_MANY = 1_000
"""The number of messages that are looked at in one step."""


class View(Tables):
    """One data file, open for reading. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open `path` and its log, without changing either; nobody else may have it open.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
        # To read a log, SQLite creates an index file next to it. Without a log the file is complete and immutable.
        logged = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
        self._index = Path(f"{path}-shm") if logged else None
        self._kept_index = self._index.read_bytes() if self._index and self._index.exists() else None
        super().__init__(path, "ro" if logged else "ro&immutable=1")

    def close(self) -> None:
        """Close the file, and leave the index as it was."""
        super().close()
        if self._index is not None:
            if self._kept_index is None:
                self._index.unlink(missing_ok=True)
            else:
                self._index.write_bytes(self._kept_index)

    def last_given(self) -> str:
        """Describe the last id that the last transaction knows, with its queue."""
        lane = max(self.lanes(), key=lambda lane: (bool(lane.queue), lane.seq), default=None)
        return f"{lane.last_id} of {lane.queue}" if lane and lane.queue and lane.last_id else NO_MESSAGE

    def last_in_order(self) -> str:
        """Describe the last message before the first unreadable one."""
        key = -1
        try:
            while rows := self.every(key, _MANY):
                key = rows[-1].key
        except StoreDamaged as error:
            return error.last_good
        return self.name(key)

    def missing_page(self, log: Collection[int]) -> int:
        """Return the first page that is neither in the file nor in `log`; 0: none is missing."""
        with self._reporting():
            pages = int(self._db.execute("PRAGMA page_count").fetchone()[0])
        there = os.path.getsize(self.path) // PAGE_SIZE
        return next((page for page in range(there + 1, pages + 1) if page not in log and page != _LOCK_PAGE), 0)

    def integrity(self) -> None:
        """Check the structure of the whole file with SQLite's integrity check.

        Raises:
            StoreDamaged: with the first finding.
        """
        with self._reporting():
            answer = self._db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if answer != "ok":
            raise StoreDamaged(f"{self.path}: {one_line(answer)}")


def one_line(text: str) -> str:
    """Return a report of SQLite in one line."""
    return " ".join(text.replace("*** in database main ***", "").split())
