"""Notices when an open data file, or a file that it needs, was removed or replaced.

SQLite does not notice: it keeps writing to the open file, which no longer has a name, and everything confirmed from
then on is lost when the process ends.
"""

from __future__ import annotations

import errno
import logging
import os
import sqlite3
import time
from pathlib import Path

from stiqueue.engines.sqlite.store import Store
from stiqueue.errors import StoreError

LOOK_SECONDS = 0.5
"""Seconds between two looks at the names while there is work; without work, each wake-up of the journal looks."""
WATCHED = ("", "-wal", "-lock", "-mark")
"""The endings of the files: a data file is not safe without its log, its lock and its mark."""
REMOVED = "STORE_REMOVED"
"""The reason of the error."""
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Watch:
    """Compares the files at the names of one open data file with those at startup. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Remember the files at `path` and next to it; the log may appear later."""
        self._path = path
        self._known: dict[str, tuple[int, int]] = {}
        self._due = 0.0
        self.look()

    def look_when_due(self) -> None:
        """Call `look`, unless the last look was less than `LOOK_SECONDS` ago."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + LOOK_SECONDS
            self.look()

    def look(self) -> None:
        """Look at each name.

        Raises:
            StoreError: a file is missing or is a different one; the reason is `REMOVED`.
        """
        for end in WATCHED:
            name = f"{self._path}{end}"
            try:
                status = os.stat(name)
            except OSError as error:
                # Other errors say nothing about the file; the next write will fail if it matters.
                if end in self._known and error.errno in _GONE:
                    raise StoreError(f"{name}: was removed while it was in use", REMOVED) from None
                continue
            found = status.st_dev, status.st_ino
            if self._known.setdefault(end, found) != found:
                raise StoreError(f"{name}: was replaced while it was in use", REMOVED)

    def gone(self) -> StoreError | None:
        """Call `look`, and return the error instead of raising it."""
        try:
            self.look()
        except StoreError as error:
            return error
        return None

    @property
    def has_data_file(self) -> bool:
        """Whether the data file itself is still at its name."""
        try:
            status = os.stat(self._path)
        except OSError:
            return False
        return self._known.get("") == (status.st_dev, status.st_ino)


def keep_removed(store: Store, watch: Watch, logger: logging.Logger) -> None:
    """Save the contents of an open data file after one of its files was removed or replaced; log where they are.

    The open files still contain everything confirmed. If the data file lost its name, it is copied to
    ``<file>.removed-<time>``; a file at the old name belongs to somebody else.
    """
    path = store.path
    try:
        # The log ends up empty: at its old name it must not meet another data file.
        store.checkpoint(cut=True)
        if watch.has_data_file:
            logger.error("%s: has all that was confirmed; start again", path)
            return
        kept = Path(f"{path}.removed-{int(time.time())}")
        store.copy_to(kept)
        logger.error("%s: all that was confirmed is in %s: start with --data %s", path, kept, kept)
    except (OSError, sqlite3.Error) as error:
        logger.error("%s: what it had could not be copied: %s", path, error)
