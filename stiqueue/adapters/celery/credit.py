"""How many messages a channel may hold unsettled: kombu's prefetch count."""

from __future__ import annotations

import threading


class Credit:
    """The prefetch count of a channel, shared by the threads that read its queues. Thread-safe."""

    def __init__(self) -> None:
        """Begin without a limit."""
        self._changed = threading.Condition()
        """Protects all attributes."""
        self._limit = 0
        self._taken = 0
        self._is_closed = False

    @property
    def limit(self) -> int:
        """The prefetch count; 0: no limit."""
        return self._limit

    def set_limit(self, limit: int) -> None:
        """Allow `limit` messages from now on; those that are taken stay."""
        with self._changed:
            self._limit = limit
            self._changed.notify_all()

    def take(self, timeout: float) -> bool:
        """Count one message more; False if there is no room within `timeout` seconds."""
        with self._changed:
            if not self._changed.wait_for(self._has_room, timeout) or self._is_closed:
                return False
            self._taken += 1
            return True

    def give(self) -> None:
        """Count one message less."""
        with self._changed:
            self._taken -= 1
            self._changed.notify()

    def wait(self) -> None:
        """Wait until there is room, or the channel is closed."""
        with self._changed:
            self._changed.wait_for(self._has_room)
            self._changed.notify()  # this thread has not taken it

    def close(self) -> None:
        """Let nobody wait any more."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return self._is_closed or not self._limit or self._taken < self._limit
