"""The queues of one process, in memory or with a log.

Every operation is written without waiting; a coroutine is woken by a callback, a thread waits on a Condition. With a
log, a message can be delivered once its insertion is safe, an ack is answered once it is, and of a long queue only a
window is in memory: the rest is read from the log in pages.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

from stiqueue.engines.bounds import Bounds, Quota
from stiqueue.engines.clock import Clock, SystemClock
from stiqueue.engines.local import looking
from stiqueue.engines.local.administration import Administration
from stiqueue.engines.local.arrivals import Arrivals
from stiqueue.engines.local.change import Change, telling
from stiqueue.engines.local.consumer import LocalConsumer, Queue, Wakes, call
from stiqueue.engines.local.dispatch import Dispatch
from stiqueue.engines.local.enforcement import Enforcement
from stiqueue.engines.local.log import Log
from stiqueue.engines.local.looking import Looking
from stiqueue.engines.local.queues import Queues
from stiqueue.engines.local.reader import Reader
from stiqueue.engines.local.recorder import Recorder
from stiqueue.engines.local.settlements import Settlements
from stiqueue.engines.local.timer import Timer
from stiqueue.errors import StiQueueError
from stiqueue.message import Batch, Counts, Durability, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.engine import Soon
from stiqueue.rules.entry import Peeked
from stiqueue.rules.lane import Window
from stiqueue.rules.later import Later
from stiqueue.rules.lease import Lease

LOAD_SECONDS = 60.0
"""How long a thread that looks at messages waits for the disk."""
STEP_CHANGES = 100
"""How many changes that are safe are applied while the lock is held."""


class LocalEngine:
    """Queues in this process; see `stiqueue.rules.engine.Engine`. Thread-safe.

    The methods with ``_now`` and `submit` are for threads, those of the protocol for an event loop. With a log,
    `submit` and `settle_now` return a Future instead of the answer.
    """

    def __init__(
        self,
        bounds: Bounds | None = None,
        max_attempts: int = 0,
        clock: Clock | None = None,
        log: Log | None = None,
        window: Window | None = None,
        ack_timeout: float | None = None,
    ) -> None:
        """Start empty; a log is opened by `start`.

        Args:
            bounds: how much is taken in; default: no bound but 10,000 queues.
            max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
            clock: where the time comes from; default: the machine's clocks.
            log: where messages are kept beside memory; None: nowhere.
            window: with a log, how much of a queue is in memory; default: see `Window`.
            ack_timeout: seconds until an unsettled message is given back, for consumers that do not say themselves.
        """
        self._lock = threading.Lock()
        """Protects all queues, consumers, leases and alarms: all attributes of an engine, and all they hold. No other
        lock but the log's is taken while it is held."""
        self._clock = clock or SystemClock()
        self._log = log
        # Guarded by the lock, as is all they hold:
        bounds = bounds or Bounds()
        quota = Quota(bounds)
        self._timer: Timer[Queue | None] = Timer(self._lock, self._clock, self.tick)
        in_memory = None if log is None else window or Window()
        defaults = QueueSettings(
            max_attempts=max_attempts,
            max_messages=bounds.max_messages,
            max_bytes=bounds.max_queue_bytes,
            ack_timeout=ack_timeout,
        )
        self._enforcement = Enforcement(self._clock, self._timer, defaults)
        self._queues = Queues(bounds.max_queues, in_memory, self._enforcement.obey, self._timer.cancel)
        self._reader = self._recorder = None
        if log is not None:
            self._reader = Reader(self._lock, self._clock, log, lambda *change: self._dispatch.after(*change))
            self._recorder = Recorder(log, self._clock, self._timer, self._reader)
        self._dispatch = Dispatch(
            self._lock, self._clock, quota, self._queues, self._timer, self._recorder, self._reader
        )
        self._settlements = Settlements(self._lock, self._clock, self._dispatch, self._recorder)
        self._arrivals = Arrivals(self._lock, self._clock, quota, self._queues, self._dispatch, self._settlements, log)
        self._looking = Looking(self._lock, self._clock, self._queues, self._enforcement, self._reader)
        self._administration = Administration(
            self._lock, self._clock, self._enforcement, self._queues, self._dispatch, log
        )
        if log is not None:
            self._queues.refusal = ("the data file is not open yet", "STARTING")
        self.on_failure: Callable[[StiQueueError], None] = lambda error: None
        """Called when nothing can be written any more: the process should end."""

    @property
    def durability(self) -> Durability:
        return Durability.MEMORY if self._log is None else self._log.durability

    @property
    def description(self) -> str:
        return "in memory (lost when the process ends)" if self._log is None else self._log.description

    # -- starting and ending ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        if self._log is not None:
            await asyncio.to_thread(self.start_now)

    def start_now(self) -> None:
        """Open the log; every message in it is ready or delayed again. In memory there is nothing to do.

        Raises:
            StoreError: the log cannot be used.
        """
        if self._log is None or self._reader is None:
            return
        kept = self._log.open(self._written, self._failed)
        woken: Wakes = []  # nobody waits yet
        with self._lock:
            now = self._clock.monotonic()
            self._enforcement.restore(kept.policies)
            self._queues.restore(kept, now, int(self._clock.wall() * 1000))
            self._arrivals.restore(kept.requests, now)
            self._queues.refusal = None
            self._dispatch.after(self._queues.all(), now, woken)
            for each in self._queues.each():
                self._reader.top_up(each)

    async def close(self) -> None:
        if self._log is None:
            self.close_now()
        else:
            await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        """Stop; consumers still open are closed. Safe to call twice."""
        if self._log is not None and not self._log.is_ours:
            return  # in a fork, where nobody may ever release the lock
        woken: Wakes = []
        with self._lock:
            if self._reader is not None:
                self._reader.stop()
            self._queues.refusal = ("the queue is closed", "SHUTTING_DOWN")
            now = self._clock.monotonic()
            for queue in self._queues.all():
                queue.line.clear()  # what one gives back is not handed to the next, whom it would count as an attempt
                for consumer in list(queue.consumers):
                    self._dispatch.drop(consumer, now, woken)
            self._timer.stop()
        call(woken)
        self._timer.join()
        if self._log is not None:
            self._log.close()

    def _failed(self, error: StiQueueError) -> None:
        """Take and give nothing more; threads that wait are told. Called on the log's thread."""
        woken: Wakes = []
        with self._lock:
            self._queues.refusal = (str(error), "STORE_FAILED")
            now = self._clock.monotonic()
            for queue in self._queues.all():
                for consumer in list(queue.consumers):
                    if consumer.is_thread:  # the others are told by their server, which stops
                        self._dispatch.drop(consumer, now, woken)
        call(woken)
        self.on_failure(error)

    # -- enqueueing ---------------------------------------------------------------------------------------------------

    def enq(self, batch: Batch) -> Soon[Receipt]:
        return self._arrivals.submit(batch, _later)

    def submit(self, batch: Batch) -> Receipt | Future[Receipt]:
        """Enqueue; see `stiqueue.rules.engine.Engine.enq`."""
        return self._arrivals.submit(batch, _future)

    def _written(self, changes: Sequence[Change], error: StiQueueError | None) -> None:
        """Apply changes that are safe, or were refused with `error`, and answer. Called on the log's thread."""
        for start in range(0, len(changes), STEP_CHANGES):
            part = changes[start : start + STEP_CHANGES]
            woken: Wakes = []
            with self._lock:
                now = self._clock.monotonic()
                touched = {
                    queue: None
                    for change in part
                    if change.then is not None
                    for queue in change.then(error, now, woken)
                }
                self._dispatch.after(touched, now, woken)
            call(woken)
            for change in part:
                if change.tell is not None:
                    change.tell(error)

    def flush(self) -> Future[None]:
        """Return a Future that is done when all changes made so far are safe."""
        done: Future[None] = Future()
        if self._log is None:
            done.set_result(None)
        else:
            self._log.append(Change(tell=telling(done, None)))
        return done

    # -- delivering and settling --------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription, wake: Callable[[], None] | None = None) -> LocalConsumer:
        """Open a consumer; without `wake` it is for a thread, which waits with `LocalConsumer.take_waiting`."""
        with self._lock:
            self._queues.check_open()
            queue = self._queues.open(subscription.queue)
            consumer = LocalConsumer(self._dispatch, queue, subscription, wake, self._lock)
            queue.consumers[consumer] = None
            return consumer

    def settle(self, settlement: Settlement) -> Soon[list[str]]:
        return self._settlements.settle(settlement, _later)

    def settle_now(self, settlement: Settlement) -> list[str] | Future[list[str]]:
        """Settle; see `stiqueue.rules.engine.Engine.settle`."""
        return self._settlements.settle(settlement, _future)

    def exchange(self, lease_id: str) -> list[Lease] | None:
        """Ack a lease and take what is next; see `stiqueue.rules.engine.Engine.exchange`."""
        return self._settlements.exchange(lease_id)

    def queue_of(self, lease_id: str) -> str | None:
        """See `stiqueue.rules.engine.Engine.queue_of`."""
        return self._settlements.queue_of(lease_id)

    def tick(self) -> None:
        """Do all that is due now. The timer thread calls this by itself; a test with a clock of its own, by hand."""
        woken: Wakes = []
        with self._lock:
            now = self._clock.monotonic()
            for queue in self._timer.pop_due(now):
                if queue is not None:
                    self._enforcement.resume(queue, now)
                    self._dispatch.run_out(queue, now, woken)
                elif self._recorder is not None:
                    self._recorder.write_attempts(now)
        call(woken)

    # -- settings -----------------------------------------------------------------------------------------------------

    def configure(self, change: QueueSettings, reset: Sequence[str]) -> Soon[QueueSettings]:
        return self._administration.configure(change, reset, _later)

    def configure_now(self, change: QueueSettings, reset: Sequence[str]) -> QueueSettings | Future[QueueSettings]:
        """Change settings; see `stiqueue.rules.engine.Engine.configure`."""
        return self._administration.configure(change, reset, _future)

    def settings(self, queue: str) -> SettingsReport:
        """See `stiqueue.rules.engine.Engine.settings`."""
        return self._administration.report(queue)

    def fix(self, settings: Sequence[QueueSettings]) -> None:
        """See `stiqueue.rules.engine.Engine.fix`."""
        self._administration.fix(settings)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        return self.counts_now(queues)

    def counts_now(self, queues: Sequence[str] = ()) -> list[Counts]:
        """Count; see `stiqueue.rules.engine.Engine.counts`."""
        return self._looking.counts(queues)

    async def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        async for chunk in looking.run_async(self._looking.peek(query)):
            yield chunk

    def peek_now(self, query: PeekQuery) -> Iterator[list[Peeked]]:
        """Look; see `stiqueue.rules.engine.Engine.peek`."""
        return looking.run(self._looking.peek(query), LOAD_SECONDS)


def _later() -> Later[Any]:
    return Later(asyncio.get_running_loop())


def _future() -> Future[Any]:
    return Future()
