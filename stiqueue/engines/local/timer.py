"""The thread that waits for the next alarm."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from stiqueue.engines.clock import Clock
from stiqueue.rules.alarms import Alarms

JOIN_SECONDS = 5.0
"""How long `join` waits for the thread."""

V = TypeVar("V")


class Timer(Generic[V]):
    """One alarm for each name, and a thread that calls `tick` when the earliest is due.

    The first alarm starts the thread, and `stop` ends it for good. Call all methods except `join` with the lock held;
    `tick` is called without it, and takes the due values with `pop_due`.
    """

    def __init__(self, lock: threading.Lock, clock: Clock, tick: Callable[[], None]) -> None:
        """Start without alarms.

        Args:
            lock: the owner's lock, which also guards the timer.
            clock: where the time comes from.
            tick: called when something is due.
        """
        self._clock = clock
        self._tick = tick
        self._alarms: Alarms[str, V] = Alarms()
        self._changed = threading.Condition(lock)
        """Notified when the earliest alarm changes, and by `stop`."""
        self._thread: threading.Thread | None = None
        self._stopped = False

    def set(self, name: str, due: float | None, value: V) -> None:
        """Set or replace the alarm of `name`: `value` is due at `due`; None: cancel it."""
        if due is None or self._stopped:
            self._alarms.cancel(name)
            return
        earliest = self._alarms.next_at()
        self._alarms.set(name, due, value)
        if earliest is None or due < earliest:
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="stiqueue-timer", daemon=True)
                thread.start()
                self._thread = thread
            self._changed.notify()

    def cancel(self, name: str) -> None:
        """Cancel the alarm of `name`, if it is set."""
        self._alarms.cancel(name)

    def pop_due(self, now: float) -> list[V]:
        """Remove and return the values that are due at `now`, the earliest first; none once the timer is stopped."""
        return [] if self._stopped else self._alarms.pop_due(now)

    def stop(self) -> None:
        """Cancel all alarms, and end the thread."""
        self._stopped = True
        self._changed.notify_all()

    def join(self) -> bool:
        """Wait for the end of the thread after `stop`, without the lock; return whether it ended."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(JOIN_SECONDS)
        return not thread.is_alive()

    def _run(self) -> None:
        while self._wait():
            self._tick()

    def _wait(self) -> bool:
        """Wait until something is due; return False when it is stopped."""
        with self._changed:
            while not self._stopped:
                when = self._alarms.next_at()
                left = None if when is None else when - self._clock.monotonic()
                if left is not None and left <= 0:
                    return True
                self._changed.wait(None if left is None else min(left, threading.TIMEOUT_MAX))
            return False
