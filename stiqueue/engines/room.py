"""The disk space of one data file: its log is kept short, unused space is given back, and a full disk is made do with.

Acks need space as well: a deletion is written to the log before it frees anything. So some is held in reserve. When the
disk is full that is given up, new messages are refused, and the rest is written in small parts, each moved from the log
into the file at once, until there is room for the reserve again.

Not thread-safe: used by the journal's thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from pathlib import Path

from stiqueue.engines.store import Store

RESERVE_BYTES = 8 << 20
"""More than what the log usually has, all of which may have to go into the file, and a part of acks."""
MARGIN_BYTES = 1 << 20
"""What must be free beside the reserve until new messages are taken again, or it would be needed at once."""
LOG_PAGES = 1_000
"""How many pages the log may have, about, before they are moved into the file."""
SHRINK_PAGES = 500
"""How much of an emptied file is given back to the disk at a time."""
KEPT_PAGES = 1_000
"""Unused pages that are kept for what comes next."""


def is_full(error: Exception) -> bool:
    """Whether `error` says that the disk is full."""
    return isinstance(error, sqlite3.OperationalError) and "full" in str(error)


class Room:
    """Keeps the space of the data file of `store`."""

    def __init__(self, store: Store, logger: logging.Logger) -> None:
        """Take nothing yet."""
        self.full = False
        """Whether the disk is full: new messages are refused, everything else goes on."""
        self.untidy = True
        """Whether `tidy` may have something to do."""
        self.shrinking = False
        """Whether it has more to do, at once."""
        self._store = store
        self._logger = logger
        self._reserve = Path(f"{store.path}-reserve")
        self._tight = False
        """Whether the log was told that the disk is full."""
        self._pages = LOG_PAGES
        """About how many pages the log has."""

    def take(self) -> None:
        """Take the reserve."""
        self.full = not self._take_reserve()

    def used(self, pages: int) -> None:
        """Know that a transaction has put `pages` into the log."""
        self.untidy = True
        self._pages += pages
        if self._pages >= LOG_PAGES:
            self._store.checkpoint()
            self._pages = 0

    def make_do(self) -> None:
        """Make room for a part of what must be written although the disk is full: all of the log goes into the file."""
        if not self._tight:
            self._tight = True
            self._logger.error(
                "%s: the disk is full: new messages are refused, acks and deliveries go on", self._store.path
            )
        self.full = self.untidy = True
        self._reserve.unlink(missing_ok=True)
        self._store.checkpoint(cut=True)
        self._pages = 0

    def tidy(self) -> None:
        """Give unused space back, a part at a time, and take the reserve back."""
        self.untidy = self.shrinking = False
        unused = self._store.free_pages()
        kept = 0 if self.full else KEPT_PAGES
        if unused > kept:
            self._store.shrink(min(SHRINK_PAGES, unused - kept))
            self.used(3 * SHRINK_PAGES)
            self.untidy = self.shrinking = unused - SHRINK_PAGES > kept
            if not self.shrinking:
                self._store.checkpoint(cut=True)
        if self.full and self._has_room() and self._take_reserve():
            self.full = self._tight = False
            self._logger.info("%s: there is room again: new messages are taken", self._store.path)

    def leave(self) -> None:
        """Give the reserve up: the file is closed."""
        self._reserve.unlink(missing_ok=True)

    def _has_room(self) -> bool:
        about = os.statvfs(self._store.path.parent)
        return about.f_bavail * about.f_frsize >= RESERVE_BYTES + MARGIN_BYTES

    def _take_reserve(self) -> bool:
        """Hold the space; return whether there was enough."""
        try:
            with self._reserve.open("ab") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE_BYTES)
        except OSError:
            with contextlib.suppress(FileNotFoundError):
                self._reserve.unlink()
            return False
        return True
