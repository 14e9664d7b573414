"""Reads from the log what memory lacks: pages of long queues, and single messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from itertools import islice

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import LaneName
from stiqueue.engines.local.consumer import LocalConsumer, Queue, Wakes, call
from stiqueue.engines.local.log import Log
from stiqueue.errors import StoreDamaged
from stiqueue.rules.entry import Entry
from stiqueue.rules.run import Run

PAGE_MESSAGES = 2_000
"""How many messages of a long queue are read at a time."""
FETCH_MESSAGES = 100
"""How many single messages are read at a time."""

After = Callable[[Sequence[Queue], float, Wakes], None]
"""Finishes a change of queues, as `Dispatch.after` does."""


class Reader:
    """Reads messages of one engine from its log, and takes them into their queues.

    Call its methods with the engine's lock held. The log answers on its own thread, which an error there ends.
    """

    def __init__(self, lock: threading.Lock, clock: Clock, log: Log, after: After) -> None:
        """Read from `log`; `lock` is the engine's. `after` is called with the queues that got messages."""
        self._lock = lock
        self._clock = clock
        self._log = log
        self._after = after
        self._stopped = False

    def stop(self) -> None:
        """Take in nothing more."""
        self._stopped = True

    def top_up(self, queue: Queue) -> None:
        """Read more of the queue when little of it is left in memory."""
        for priority, lane in queue.backlog.ready.lanes.hungry():
            lane.loading = True
            self._read(queue, LaneName(queue.name, priority), lane.edge, PAGE_MESSAGES)
        if queue.backlog.ready.strands:
            for priority, key, stored, number in queue.backlog.ready.strands.hungry():
                stored.loading = True
                self._read(queue, LaneName(queue.name, priority, key), stored.edge, number)

    def fetch(self, consumer: LocalConsumer) -> None:
        """Read messages that `consumer` asks for by their ids and that are not in memory. It waits for them."""
        is_stored = consumer.queue.backlog.unheld.is_stored
        ids = [each for each in islice(consumer.wanted, FETCH_MESSAGES) if is_stored(each)]
        consumer.coming += 1
        self._log.find(consumer.queue.name, ids, partial(self._fetched, consumer))

    def load(self, queue: Queue, priority: int, key: str, after_id: int, limit: int) -> Future[list[Entry]]:
        """Read messages to look at. The lock need not be held."""
        answer: Future[list[Entry]] = Future()

        def done(runs: list[Run]) -> None:
            answer.set_result([entry for run in runs for entry in run.entries()])

        self._log.read(LaneName(queue.name, priority, key), after_id, limit, done)
        return answer

    def _read(self, queue: Queue, lane: LaneName, edge: int, limit: int) -> None:
        self._log.read(lane, edge, limit, partial(self._loaded, queue, lane))

    def _loaded(self, queue: Queue, lane: LaneName, runs: list[Run]) -> None:
        """Take in a page of a queue. Called on the log's thread."""
        woken: Wakes = []
        with self._lock:
            if self._stopped:
                return
            if not runs and queue.backlog.ready.edge(lane.priority, lane.key) is not None:
                raise StoreDamaged(f"{self._log.name}: messages of queue {queue.name} are missing")
            now = self._clock.monotonic()
            queue.backlog.unheld.load(lane.priority, lane.key, runs, now)
            self._after([queue], now, woken)
            self.top_up(queue)
        call(woken)

    def _fetched(self, consumer: LocalConsumer, ids: Sequence[int], entries: list[Entry]) -> None:
        """Take in messages that `consumer` asks for by `ids`. Called on the log's thread."""
        woken: Wakes = []
        with self._lock:
            if self._stopped:
                return
            consumer.coming -= 1
            queue = consumer.queue
            for entry in entries:
                queue.backlog.unheld.adopt(entry)
            gone = {each for each in ids if queue.backlog.unheld.is_stored(each)}
            consumer.wanted = deque(each for each in consumer.wanted if each not in gone)
            consumer.nudge(woken)
            self._after([queue], self._clock.monotonic(), woken)
        call(woken)
