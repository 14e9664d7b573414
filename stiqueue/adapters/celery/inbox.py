"""Deliveries of a connection that kombu has not asked for yet: what threads fill and `drain_events` empties."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from queue import Empty
from typing import Generic, TypeVar

T = TypeVar("T")


class Inbox(Generic[T]):
    """A queue that can be waited for, also by an event loop as a file that becomes readable. Thread-safe."""

    def __init__(self) -> None:
        """Begin empty."""
        self._items: deque[T] = deque()
        self._came = threading.Condition()
        """Protects all attributes."""
        self._signal: tuple[socket.socket, socket.socket] | None = None

    def put(self, item: T) -> None:
        """Add `item` and wake whoever waits."""
        with self._came:
            self._items.append(item)
            self._came.notify()
            self._ring()

    def get(self, timeout: float | None = None) -> T:
        """Take the oldest item; wait for it for `timeout` seconds, by default for ever.

        Raises:
            Empty: there was none.
        """
        with self._came:
            if not self._items and not self._came.wait_for(lambda: bool(self._items), timeout):
                raise Empty
            return self._items.popleft()

    def remove(self, matches: Callable[[T], bool]) -> list[T]:
        """Take all items that match, wherever they stand."""
        with self._came:
            found = [item for item in self._items if matches(item)]
            self._items = deque(item for item in self._items if not matches(item))
        return found

    def fileno(self) -> int:
        """Return the number of a file that is readable while there are items that `hush` has not seen."""
        with self._came:
            if self._signal is None:
                self._signal = reader, writer = socket.socketpair()
                reader.setblocking(False)
                writer.setblocking(False)
                if self._items:
                    self._ring()
            return self._signal[0].fileno()

    def hush(self) -> None:
        """Make the file unreadable: the caller takes all items that are here now."""
        with self._came:
            if self._signal is not None:
                with suppress(BlockingIOError):
                    self._signal[0].recv(4096)

    def remind(self) -> None:
        """Make the file readable again if items are left."""
        with self._came:
            if self._items:
                self._ring()

    def close(self) -> None:
        """Close the file."""
        with self._came:
            for end in self._signal or ():
                end.close()
            self._signal = None

    def _ring(self) -> None:
        if self._signal is not None:
            with suppress(OSError):  # its buffer is full: it is readable
                self._signal[1].send(b"\0")
