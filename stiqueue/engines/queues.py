"""All queues of an engine, by name. A queue exists from its first use, and vanishes when it is empty and unused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from stiqueue.engines.consumer import Queue
from stiqueue.errors import LimitReached
from stiqueue.lane import Window
from stiqueue.message import DEAD_SUFFIX
from stiqueue.pending import Pending


class Queues:
    """The queues there are. Not thread-safe: guarded by its engine's lock."""

    def __init__(self, most: int, max_attempts: int, window: Window | None, forgotten: Callable[[str], None]) -> None:
        """Begin with none.

        Args:
            most: how many there may be.
            max_attempts: deliveries before a message of theirs is a dead letter; 0: no limit.
            window: how much of one is in memory, and half of what is of many; None: all.
            forgotten: called with the name of each that vanishes.
        """
        self._most = most
        self._max_attempts = max_attempts
        self._whole = window
        self._window = None if window is None else replace(window)
        """What each queue has of it, whichever are there."""
        self._forgotten = forgotten
        self._by_name: dict[str, Queue] = {}
        self.floor = 1
        """Ids of queues that come (back) into being start here, so that ids rise also across a queue's absence."""

    def get(self, name: str) -> Queue | None:
        """Return a queue that there is."""
        return self._by_name.get(name)

    def all(self) -> list[Queue]:
        """Return all queues there are."""
        return list(self._by_name.values())

    def each(self) -> Iterable[Queue]:
        """Look through all, while none comes or goes."""
        return self._by_name.values()

    def open(self, name: str) -> Queue:
        """Return a queue, which comes into being if it has to.

        Raises:
            LimitReached: there are too many.
        """
        queue = self._by_name.get(name)
        if queue is None:
            if len(self._by_name) >= self._most:
                self._forget_unused()
            if len(self._by_name) >= self._most:
                raise LimitReached(f"there are {len(self._by_name):,} queues; max_queues is that", "TOO_MANY_QUEUES")
            queue = self.make(name)
        return queue

    def make(self, name: str) -> Queue:
        """Return a queue, which comes into being however many there are."""
        queue = self._by_name.get(name)
        if queue is None:
            # A dead letter stays where it is, however often it is looked at.
            max_attempts = 0 if name.endswith(DEAD_SUFFIX) else self._max_attempts
            queue = Queue(Pending(name, max_attempts, self._window), self.floor)
            self._by_name[name] = queue
            self._divide()
        return queue

    def _divide(self) -> None:
        if self._window is not None and self._whole is not None:
            self._window.divide(self._whole, len(self._by_name))

    def _forget_unused(self) -> None:
        """Make room for new queues: those that are empty and unused lose their totals."""
        for name, queue in list(self._by_name.items()):
            if not queue.in_use:
                self.floor = max(self.floor, queue.next_id)
                self._forgotten(name)
                del self._by_name[name]
        self._divide()
