"""What callers hand to the journal's thread: changes to write, pages to read, and word that it is to stop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from stiqueue.engines.writer import Change

LAZY_SECONDS = 0.05
"""How long a change that nobody waits for is held back, to be written together with others."""

Load = Callable[[], None]
"""Reads a page, and hands it to who asked for it."""


class Post(NamedTuple):
    """What has gathered."""

    changes: list[Change]
    loads: list[Load]
    lazy: bool
    """Whether what nobody waits for is due."""
    idle: bool
    """Whether there was nothing for as long as the thread has patience."""


class Mailbox:
    """Many threads put in, one takes out. Thread-safe."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._work = threading.Condition()
        """Guards all that follows; notified when there is something to do."""
        self._changes: list[Change] = []
        self._loads: list[Load] = []
        self._hurry = False
        """Whether somebody waits for one of the changes."""
        self._lazy_until: float | None = None
        """When changes that nobody waits for are due at the latest."""
        self._stopping = False

    def put(self, change: Change, lazy: bool = False) -> None:
        """Put in a change; a `lazy` one may wait a moment for others."""
        with self._work:
            self._changes.append(change)
            if lazy:
                self._lazily()
            else:
                self._hurry = True
                self._work.notify()

    def expect_lazy(self) -> None:
        """Have what nobody waits for taken within a moment."""
        with self._work:
            self._lazily()

    def _lazily(self) -> None:
        if self._lazy_until is None:
            self._lazy_until = time.monotonic() + LAZY_SECONDS
            self._work.notify()

    def put_load(self, load: Load) -> None:
        """Put in something to read."""
        with self._work:
            self._loads.append(load)
            self._work.notify()

    def stop(self) -> None:
        """Say that nothing comes any more."""
        with self._work:
            self._stopping = True
            self._work.notify()

    @property
    def is_over(self) -> bool:
        """Whether nothing is in it, and nothing comes any more."""
        with self._work:
            return self._stopping and not self._changes and not self._loads

    def take(self, busy: bool, patience: Callable[[], float | None]) -> Post:
        """Wait for something, unless `busy`, and take it all out.

        `patience` says how many seconds to wait (None: for ever); it is asked with the lock held.
        """
        idle = False
        with self._work:
            while not (busy or self._loads or self._stopping or self._hurry):
                if self._lazy_until is not None:
                    timeout: float | None = max(0.0, self._lazy_until - time.monotonic())
                else:
                    timeout = patience()
                if not self._work.wait(timeout) and timeout is not None:
                    idle = self._lazy_until is None
                    break
            changes, self._changes = self._changes, []
            loads, self._loads = self._loads, []
            lazy, self._lazy_until = self._lazy_until is not None, None
            self._hurry = False
            return Post(changes, loads, lazy, idle)

    def take_changes(self) -> tuple[list[Change], bool]:
        """Wait for changes or the end, and take the changes out; return whether it was the end as well."""
        with self._work:
            while not (self._changes or self._stopping):
                self._work.wait()
            changes, self._changes = self._changes, []
            return changes, self._stopping
