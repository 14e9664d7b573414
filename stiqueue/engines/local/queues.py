"""All queues of an engine, by name. A queue exists from its first use until it is empty and unused."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from stiqueue.engines.local.consumer import Queue
from stiqueue.engines.local.log import Kept
from stiqueue.errors import LimitReached, Unavailable
from stiqueue.rules.backlog import Backlog
from stiqueue.rules.entry import Properties
from stiqueue.rules.lane import Window


class Queues:
    """The queues of one engine. Not thread-safe: guarded by its lock."""

    def __init__(
        self,
        most: int,
        window: Window | None,
        made: Callable[[Queue], None],
        forgotten: Callable[[str], None],
    ) -> None:
        """Start with none.

        Args:
            most: the highest number of queues.
            window: how much of a single queue is in memory; many share twice as much. None: all.
            made: called with each new queue.
            forgotten: called with the name of each queue that vanishes.
        """
        self._most = most
        self._made = made
        self._whole = window
        self._window = None if window is None else replace(window)
        """The share of each queue."""
        self._forgotten = forgotten
        self._by_name: dict[str, Queue] = {}
        self.refusal: tuple[str, str] | None = None
        """Why new messages and consumers are refused: a text and a reason; None: they are not."""
        self.floor = 1
        """The first id of a new queue: ids keep rising when a queue vanishes and comes back."""

    def check_open(self) -> None:
        """Check that new messages and consumers are accepted.

        Raises:
            Unavailable: they are refused.
        """
        if self.refusal is not None:
            raise Unavailable(*self.refusal)

    def get(self, name: str) -> Queue | None:
        """Return an existing queue, or None."""
        return self._by_name.get(name)

    def all(self) -> list[Queue]:
        """Return all queues."""
        return list(self._by_name.values())

    def each(self) -> Iterable[Queue]:
        """Iterate over all queues; none may come or go meanwhile."""
        return self._by_name.values()

    def open(self, name: str) -> Queue:
        """Return a queue; create it if it does not exist.

        Raises:
            LimitReached: there are too many queues.
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
        """Return a queue; create it even if there are too many."""
        queue = self._by_name.get(name)
        if queue is None:
            queue = Queue(Backlog(name, window=self._window), self.floor)
            self._made(queue)
            self._by_name[name] = queue
            self._divide()
        return queue

    def restore(self, kept: Kept, now: float, wall_ms: int) -> None:
        """Restore the contents of a log: ready messages by number only, delayed ones whole."""
        self.floor = kept.floor + 1
        for lane in kept.lanes:
            queue = self.make(lane.name.queue)
            queue.next_id = max(queue.next_id, lane.last_id + 1)
            queue.backlog.unheld.restore(lane.name.priority, lane.ready, lane.bytes, lane.name.key, lane.edge)
        for unique in kept.unique:
            expires_at = None if unique.expires_ms is None else now + (unique.expires_ms - wall_ms) / 1000
            known = Properties(0, expires_at=expires_at, unique_key=unique.unique_key)
            self.make(unique.queue).backlog.uniques.claim(unique.id, known)
        for name, due_ms, entry in kept.delayed:
            queue = self.make(name)
            queue.due_ms[entry.id] = due_ms
            due = now + (abs(due_ms) - wall_ms) / 1000
            queue.backlog.unheld.put_back(entry, now, due, holds=due_ms < 0)

    def _divide(self) -> None:
        if self._window is not None and self._whole is not None:
            self._window.divide(self._whole, len(self._by_name))

    def _forget_unused(self) -> None:
        """Make room for new queues: forget the empty and unused ones, with their totals."""
        for name, queue in list(self._by_name.items()):
            if not queue.in_use:
                self.floor = max(self.floor, queue.next_id)
                self._forgotten(name)
                del self._by_name[name]
        self._divide()
