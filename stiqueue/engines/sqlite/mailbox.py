"""The inbox of the journal's thread: changes to write, pages to read, and the order to stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import NamedTuple

from stiqueue.engines.local.change import Change

LAZY_SECONDS = 0.05
"""How long a lazy change waits for others to share its transaction."""

Load = Callable[[], None]
"""Reads a page, and hands it to its caller."""


class Post(NamedTuple):
    """The contents of the mailbox."""

    changes: list[Change]
    loads: list[Load]
    idle: bool
    """Whether nothing arrived while the thread was patient."""


class Mailbox:
    """Many threads put in, one takes out. `put`, `put_load` and `stop` are thread-safe."""

    def __init__(self) -> None:
        """Start empty."""
        # A SimpleQueue, not a Condition: it is written in C, and a hand-over takes half the time (6 us less).
        self._items: SimpleQueue[Change | Load | None] = SimpleQueue()
        """In order of arrival; None is the order to stop."""
        # Used by the thread that takes out:
        self._changes: list[Change] = []
        self._loads: list[Load] = []
        self._lazy_until: float | None = None
        """When lazy changes must be written at the latest."""
        self._stopping = False

    def put(self, change: Change) -> None:
        """Put in a change; a lazy one may wait `LAZY_SECONDS` for others."""
        self._items.put(change)

    def put_load(self, load: Load) -> None:
        """Put in a read."""
        self._items.put(load)

    def stop(self) -> None:
        """Order the thread to stop."""
        self._items.put(None)

    @property
    def is_over(self) -> bool:
        """Whether the order to stop came and the mailbox is empty."""
        return self._stopping and not self._changes and self._items.empty()

    def take(self, busy: bool, patience: Callable[[], float]) -> Post:
        """Take everything out; unless `busy`, first wait for something, up to `patience()` seconds."""
        urgent, idle = busy or self._stopping, False
        while not urgent:
            timeout = patience() if self._lazy_until is None else max(0.0, self._lazy_until - time.monotonic())
            try:
                urgent = self._sort(self._items.get(timeout=timeout))
            except Empty:
                idle = self._lazy_until is None
                break
        while not self._items.empty():
            self._sort(self._items.get_nowait())
        post = Post(self._changes, self._loads, idle)
        self._changes, self._loads, self._lazy_until = [], [], None
        return post

    def _sort(self, item: Change | Load | None) -> bool:
        """Sort one item; return whether somebody waits for it."""
        if isinstance(item, Change):
            self._changes.append(item)
            if not item.lazy:
                return True
            if self._lazy_until is None:
                self._lazy_until = time.monotonic() + LAZY_SECONDS
            return False
        if item is None:
            self._stopping = True
        else:
            self._loads.append(item)
        return True
