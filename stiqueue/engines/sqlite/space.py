"""The disk space of one data file: keeps the log short, returns unused space, and copes with a full disk.

Acks need space as well: SQLite writes a deletion to the log before it frees anything. So a reserve file holds some
space. When the disk is full, the reserve is deleted, new messages are refused, and everything else is written in small
parts, each moved from the log into the file at once, until the reserve fits again.

Not thread-safe: used by the journal's thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from stiqueue.engines.sqlite.schema import PAGE_SIZE
from stiqueue.engines.sqlite.store import Store

RESERVE_BYTES = 8 << 20
"""More than the usual log, all of which may have to move into the file, plus one part of acks."""
MARGIN_BYTES = 1 << 20
"""Free space required in addition to the reserve before new messages are accepted again."""
LOG_PAGES = 1_000
"""The approximate number of pages in the log at which they are moved into the file."""
SPARE_PAGES = 100
"""Further pages for small changes, which go first: moving the log takes as long as writing a large message."""
SHRINK_PAGES = 500
"""Pages of an emptied file that are returned to the disk at a time."""
KEPT_PAGES = 1_000
"""Unused pages that stay in the file for the next messages."""


def is_full(error: Exception) -> bool:
    """Whether `error` says that the disk is full."""
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)


class Space:
    """Manages the disk space of the data file of `store`."""

    def __init__(self, store: Store, logger: logging.Logger) -> None:
        """Take no space yet."""
        self.full = False
        """Whether the disk is full: new messages are refused, everything else goes on."""
        self.untidy = True
        """Whether `tidy` may have something to do."""
        self.shrinking = False
        """Whether `tidy` has more to do at once."""
        self._store = store
        self._logger = logger
        self._reserve = Path(f"{store.path}-reserve")
        self._tight = False
        """Whether the full disk was logged."""
        self._pages = LOG_PAGES - 1
        """The approximate number of pages in the log. The first transaction moves those found at start to the file."""
        self._spared = 0
        """How many of them came after the log became long."""

    def take(self) -> None:
        """Take the reserve."""
        self.full = not self._take_reserve()

    @property
    def log_is_long(self) -> bool:
        """Whether it is time to `shorten` the log."""
        return self._pages >= LOG_PAGES

    @property
    def spare_bytes(self) -> int:
        """How many bytes of new messages still fit into a long log."""
        return max(0, SPARE_PAGES - self._spared) * PAGE_SIZE // 2  # beside them there are counters and lists

    def used(self, pages: int) -> None:
        """Count `pages` that a transaction added to the log."""
        self.untidy = True
        if self.log_is_long:
            self._spared += pages
        self._pages += pages

    def shorten(self) -> None:
        """Move the log into the file."""
        self._store.checkpoint()
        self._pages = self._spared = 0

    def make_do(self) -> None:
        """Make room for one part of the changes to write on a full disk: move the whole log into the file."""
        if not self._tight:
            self._tight = True
            self._logger.error(
                "%s: the disk is full: new messages are refused, acks and deliveries go on", self._store.path
            )
        self.full = self.untidy = True
        self._reserve.unlink(missing_ok=True)
        self._cut()

    def tidy(self) -> None:
        """Return unused space, a part at a time, and take the reserve again."""
        self.untidy = self.shrinking = False
        unused = self._store.free_pages()
        kept = 0 if self.full else KEPT_PAGES
        if unused > kept:
            self._store.shrink(min(SHRINK_PAGES, unused - kept))
            self.used(3 * SHRINK_PAGES)
            self.untidy = self.shrinking = unused - SHRINK_PAGES > kept
            if not self.shrinking:
                self._cut()
        if self.full and self._has_space() and self._take_reserve():
            self.full = self._tight = False
            self._logger.info("%s: there is room again: new messages are taken", self._store.path)

    def _cut(self) -> None:
        """Move the log into the file, and return its space."""
        self._store.checkpoint(cut=True)
        self._pages = self._spared = 0

    def leave(self) -> None:
        """Delete the reserve, because the file is being closed."""
        self._reserve.unlink(missing_ok=True)

    def _has_space(self) -> bool:
        about = os.statvfs(self._store.path.parent)
        return about.f_bavail * about.f_frsize >= RESERVE_BYTES + MARGIN_BYTES

    def _take_reserve(self) -> bool:
        """Allocate the reserve; return whether there was enough space."""
        try:
            file = os.open(self._reserve, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(file, 0, RESERVE_BYTES)
            finally:
                os.close(file)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                self._reserve.unlink()
            return False
        return True
