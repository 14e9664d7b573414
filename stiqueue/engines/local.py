"""The queues of one process, around the rules of `stiqueue.pending`: what comes in, what falls due, what is seen.

Every operation is written without waiting; a coroutine is woken by a callback, a thread waits on a Condition. Who is
given what is the part in `stiqueue.engines.leasing`.

`LocalEngine` keeps messages in memory. `stiqueue.engines.durable` adds the journal, in the methods marked as hooks.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import Future

from stiqueue.clock import Clock, SystemClock
from stiqueue.dedup import Recent, packed, unpacked
from stiqueue.engines import looking
from stiqueue.engines.bounds import Bounds, Room
from stiqueue.engines.consumer import LocalConsumer, Queue, Wakes, call, consumer_of
from stiqueue.engines.dead_letters import dead_letter, dead_letter_queue
from stiqueue.engines.leasing import Leasing, awaited
from stiqueue.engines.queues import Queues
from stiqueue.engines.timer import Timer
from stiqueue.entry import Entry, Peeked, Properties
from stiqueue.errors import Unavailable
from stiqueue.lane import Window
from stiqueue.lease import Lease
from stiqueue.limits import headers_size
from stiqueue.message import NO_HEADERS, Batch, Counts, Durability, PeekQuery, Receipt, Subscription
from stiqueue.run import Run

LOAD_SECONDS = 60.0
"""How long a thread that looks at messages waits for the disk."""


class LocalEngine(Leasing):
    """Queues in this process; see `stiqueue.engine.Engine`. Thread-safe.

    The methods with ``_now`` and `submit` are for threads, those of the protocol for an event loop. Where a change must
    reach a disk first, `submit` and `settle_now` return a Future instead of the answer.
    """

    window: Window | None = None
    """How much of a queue is kept in memory; None: all of it."""

    def __init__(self, bounds: Bounds | None = None, max_attempts: int = 0, clock: Clock | None = None) -> None:
        """Start empty.

        Args:
            bounds: how much is taken in; default: no bound but 10,000 queues.
            max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
            clock: where the time comes from; default: the machine's clocks.
        """
        super().__init__(clock or SystemClock())
        # Guarded by the lock, as is all they hold:
        self._room = Room(bounds or Bounds())
        self._timer: Timer[Queue] = Timer(self._lock, self._clock, self.tick)
        self._queues = Queues(self._room.bounds.max_queues, max_attempts, self.window, self._timer.cancel)
        self._recent: Recent[int | Future[Receipt]] = Recent(self._clock.monotonic())
        """What came of requests: their ids, packed, or what will be known when they are written."""
        self._closed = False

    @property
    def durability(self) -> Durability:
        return Durability.MEMORY

    @property
    def description(self) -> str:
        return "in memory (lost when the process ends)"

    async def start(self) -> None:
        self.start_now()

    def start_now(self) -> None:
        """Get ready; in memory there is nothing to do."""

    # -- enqueueing ---------------------------------------------------------------------------------------------------

    async def enq(self, batch: Batch) -> Receipt:
        return await awaited(self.submit(batch))

    def submit(self, batch: Batch) -> Receipt | Future[Receipt]:
        """Enqueue; see `stiqueue.engine.Engine.enq`."""
        number = len(batch.bodies)
        headers_bytes = headers_size(batch.headers) if batch.headers else 0
        size = sum(map(len, batch.bodies)) + number * headers_bytes
        now, wall = self._clock.monotonic(), self._clock.wall()
        properties = Properties(
            int(wall * 1000),
            batch.priority,
            batch.headers or NO_HEADERS,
            headers_bytes,
            None if batch.ttl is None else now + batch.ttl,
            None if batch.ttl is None else int((wall + batch.ttl) * 1000),
        )
        woken: Wakes = []
        with self._lock:
            self._check_open()
            known = self._recent.get(batch.queue, batch.request_id, now) if batch.request_id else None
            if known is not None:
                return self._repeated(known)
            queue = self._queues.open(batch.queue)
            finished = self._held(batch.ack_lease_ids) if batch.ack_lease_ids else []
            self._room.check(queue, self._queues.each(), number, size)
            first = queue.reserve(number)
            answer = self._enqueue(queue, Run(first, batch.bodies, properties), size, batch, finished, now, woken)
        call(woken)
        return answer

    def _enqueue(
        self,
        queue: Queue,
        run: Run,
        size: int,
        batch: Batch,
        finished: list[Lease],
        now: float,
        woken: Wakes,
    ) -> Receipt | Future[Receipt]:
        """Take in `run` (of `size` bytes) and ack `finished`. A hook; the lock is held."""
        receipt = Receipt(run.first_id, len(run), False, self.durability)
        queue.pending.add(run, size, now + batch.delay if batch.delay else None)
        if batch.request_id:
            self._recent.remember(batch.queue, batch.request_id, packed(receipt.first_id, receipt.count), now)
        touched = dict.fromkeys((queue, *self._finish_each(finished, woken))) if finished else (queue,)
        self._after(touched, now, woken)
        return receipt

    def _repeated(self, known: int | Future[Receipt]) -> Receipt | Future[Receipt]:
        """Answer a request that was seen before. A hook; the lock is held."""
        assert isinstance(known, int)
        return Receipt(*unpacked(known), True, self.durability)

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("the queue is closed", "SHUTTING_DOWN")

    # -- delivering ---------------------------------------------------------------------------------------------------

    def subscribe(self, subscription: Subscription, wake: Callable[[], None] | None = None) -> LocalConsumer:
        """Open a consumer; without `wake` it is for a thread, which waits with `LocalConsumer.take_waiting`."""
        with self._lock:
            self._check_open()
            queue = self._queues.open(subscription.queue)
            consumer = LocalConsumer(self, queue, subscription, wake, self._lock)
            queue.pending.owners[consumer] = None
            return consumer

    def _carry_off(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Record what expired, move dead letters to their queue. A hook; the lock is held."""
        fallout = queue.pending.fallout
        fallout.expired.clear()
        fallout.returned.clear()
        if not fallout.dead:
            return
        dead, fallout.dead = fallout.dead, []
        target = self._dead_letter_queue(queue)
        for entry, reason in dead:
            letter = dead_letter(entry, queue.pending.name, reason, target.reserve(1))
            target.pending.add(Run.of(letter), letter.size)
        self._hand_over(target, now, woken)

    def _dead_letter_queue(self, queue: Queue) -> Queue:
        """Return the dead letter queue; it is made even above `max_queues`, for nothing may be lost."""
        return self._queues.make(dead_letter_queue(queue.pending.name))

    # -- time passing -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Do all that is due now. The timer thread calls this by itself; a test with a clock of its own, by hand."""
        woken: Wakes = []
        with self._lock:
            now = self._clock.monotonic()
            for queue in self._timer.pop_due(now):
                self._run_out(queue, now, woken)
        call(woken)

    def _reschedule(self, queue: Queue) -> None:
        self._timer.set(queue.pending.name, queue.pending.next_due(), queue)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        return self.counts_now(queues)

    def counts_now(self, queues: Sequence[str] = ()) -> list[Counts]:
        """Count; see `stiqueue.engine.Engine.counts`."""
        with self._lock:
            now, wall_ms = self._clock.monotonic(), int(self._clock.wall() * 1000)
            asked = [(name, self._queues.get(name)) for name in queues] or sorted(
                (queue.name, queue) for queue in self._queues.each() if queue.in_use
            )
            return [looking.counts(queue.pending, now, wall_ms) if queue else Counts(name) for name, queue in asked]

    async def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        async for chunk in looking.run_async(self._peek_steps(query)):
            yield chunk

    def peek_now(self, query: PeekQuery) -> Iterator[list[Peeked]]:
        """Look; see `stiqueue.engine.Engine.peek`."""
        return looking.run(self._peek_steps(query), LOAD_SECONDS)

    def _peek_steps(self, query: PeekQuery) -> looking.Steps:
        queue = self._queues.get(query.queue)
        if queue is not None:
            yield from looking.peek(self._lock, queue, query, self._clock, self._load)

    def _load(self, queue: Queue, priority: int, after_id: int, limit: int) -> Future[list[Entry]]:
        """Read messages that are not in memory. A hook."""
        raise AssertionError("all messages are in memory")

    # -- ending -------------------------------------------------------------------------------------------------------

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        """Stop; consumers still open are closed. Safe to call twice."""
        woken: Wakes = []
        with self._lock:
            self._closed = True
            now = self._clock.monotonic()
            for queue in self._queues.all():
                queue.line.clear()  # what one gives back is not handed to the next, whom it would count as an attempt
                for owner in list(queue.pending.owners):
                    self._drop(consumer_of(owner), now, woken)
            self._timer.stop()
        call(woken)
        self._timer.join()
