"""The durable queue of one process: `LocalEngine` with a journal.

A message can be delivered once its transaction is on the disk; an ack is answered once it is. Of a long queue only a
window is in memory, the rest is read from the journal in pages.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import TypeVar

from stiqueue.clock import Clock
from stiqueue.dedup import packed
from stiqueue.engines.bounds import Bounds
from stiqueue.engines.consumer import LocalConsumer, Queue, Wakes, call, consumer_of
from stiqueue.engines.dead_letters import dead_letter
from stiqueue.engines.journal import Journal
from stiqueue.engines.local import LocalEngine
from stiqueue.engines.recording import Unrecorded, expired, removals, removed, returned
from stiqueue.engines.restoring import Reader, restore
from stiqueue.engines.rows import Row
from stiqueue.engines.settling import Settled
from stiqueue.engines.writer import Change, Insert, Update
from stiqueue.entry import Entry
from stiqueue.errors import DiskFull, LimitReached, StiQueueError, StoreDamaged, Unavailable
from stiqueue.lane import Window
from stiqueue.lease import Lease
from stiqueue.message import Batch, Durability, Outcome, Receipt
from stiqueue.run import Run

PAGE_MESSAGES = 2_000
"""How many messages are read from the journal at a time."""
RECORD_SECONDS = 0.5
"""How long a lease lasts before its attempt is worth a write: many are acked by then, also on a busy machine."""

T = TypeVar("T")


class DurableEngine(LocalEngine):
    """Queues in a data file; see `stiqueue.engine.Engine`. Thread-safe."""

    window = Window()

    def __init__(
        self,
        path: str | Path,
        bounds: Bounds | None = None,
        max_attempts: int = 0,
        clock: Clock | None = None,
        sync: bool = True,
        accept_loss: bool = False,
        logger: logging.Logger | None = None,
    ) -> None:
        """Remember the options; the file is opened by `start`.

        Args:
            path: the data file; made when it does not exist.
            bounds: how much is taken in; default: no bound but 10,000 queues.
            max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
            clock: where the time comes from; default: the machine's clocks.
            sync: whether a confirmed message is on the disk; False: when the operating system sees fit.
            accept_loss: go on with what can be read of a damaged file.
            logger: where it logs; default: the logger "stiqueue".
        """
        super().__init__(bounds, max_attempts, clock)
        self.path = Path(path).resolve()
        self._sync = sync
        self._accept_loss = accept_loss
        self._logger = logger or logging.getLogger("stiqueue")
        self._journal: Journal | None = None
        self._unrecorded = Unrecorded()
        """Guarded by the engine's lock."""
        self.on_failure: Callable[[StiQueueError], None] = lambda error: None
        """Called when nothing can be written any more: the process should end."""
        self.on_commit: Callable[[int, float], None] | None = None
        """Told of each transaction, on the journal's thread: how many changes it had, how many seconds it took."""

    @property
    def durability(self) -> Durability:
        return Durability.DISK if self._sync else Durability.MEMORY

    @property
    def description(self) -> str:
        return f"in {self.path}" + ("" if self._sync else " (not synced: a power cut loses the latest)")

    # -- starting and ending ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        await asyncio.to_thread(self.start_now)

    def start_now(self) -> None:
        """Open the data file; everything in it that was not acked is ready again.

        Raises:
            StoreError: the file cannot be used.
        """
        journal = Journal(self.path, self._clock, self._logger, self._sync, self._accept_loss)
        journal.lazy_source = self._attempts
        journal.on_failure = self._failed
        journal.observe = self.on_commit
        try:
            recovered = journal.recover()
        except BaseException:
            journal.close()
            raise
        with self._lock:
            self._journal = journal
            restore(recovered, self._queues, self._recent, *self._times())
            woken: Wakes = []  # nobody waits yet
            self._after(self._queues.all(), self._clock.monotonic(), woken)
            for queue in self._queues.each():
                self._top_up(queue)
        journal.start()

    async def close(self) -> None:
        await asyncio.to_thread(self.close_now)

    def close_now(self) -> None:
        if self._journal is not None and not self._journal.is_ours:
            return  # in a fork, where nobody may ever release the lock
        super().close_now()
        with self._lock:
            journal, self._journal = self._journal, None
        if journal is not None:
            journal.expect_lazy()
            journal.close()

    def _failed(self, error: StiQueueError) -> None:
        """Take and give nothing more; threads that wait are told. Called on the journal's thread."""
        woken: Wakes = []
        with self._lock:
            self._closed = True
            now = self._clock.monotonic()
            for queue in self._queues.all():
                for consumer in list(map(consumer_of, queue.pending.owners)):
                    if consumer.is_thread:  # the others are told by their server, which stops
                        self._drop(consumer, now, woken)
        call(woken)
        self.on_failure(error)

    def _times(self) -> tuple[float, int]:
        return self._clock.monotonic(), int(self._clock.wall() * 1000)

    def _write(self, change: Change, lazy: bool = False) -> None:
        assert self._journal is not None, "the engine was not started"
        self._journal.write(change, lazy)

    def _write_lazily(self, change: Change | None) -> None:
        if change is not None:
            self._write(change, lazy=True)

    # -- enqueueing ---------------------------------------------------------------------------------------------------

    def _check_open(self) -> None:
        if self._journal is not None and self._journal.failure is not None:
            raise Unavailable(str(self._journal.failure), "STORE_FAILED")
        super()._check_open()
        if self._journal is None:
            raise Unavailable("the data file is not open yet", "STARTING")

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
        assert self._journal is not None
        if self._journal.full:
            raise DiskFull(f"no room on the disk of {self.path}")
        if not self._journal.has_lane_for(batch.queue, batch.priority):
            raise LimitReached("there are too many queues with too many priorities", "TOO_MANY_QUEUES")
        answer: Future[Receipt] = Future()
        receipt = Receipt(run.first_id, len(run), False, self.durability)
        due_ms = int((self._clock.wall() + batch.delay) * 1000) if batch.delay else None
        queue.coming += len(run)
        queue.coming_bytes += size
        if batch.request_id:
            self._recent.remember(batch.queue, batch.request_id, answer, now)

        def written(error: StiQueueError | None) -> None:
            woken: Wakes = []
            with self._lock:
                queue.coming -= len(run)
                queue.coming_bytes -= size
                later = self._clock.monotonic()
                if batch.request_id and error is None:
                    ids = packed(receipt.first_id, receipt.count)
                    self._recent.remember(batch.queue, batch.request_id, ids, later)
                elif batch.request_id:
                    self._recent.forget(batch.queue, batch.request_id)
                if error is None:
                    if due_ms is not None:
                        queue.due_ms.update(dict.fromkeys(run.ids, due_ms))
                    queue.pending.add(run, size, now + batch.delay if batch.delay else None)
                    self._after([queue], later, woken)
            call(woken)
            if error is None:
                answer.set_result(receipt)
            else:
                answer.set_exception(error)

        settled = self._finish_each(finished, woken) if finished else {}
        self._write(
            Change(
                inserts=[Insert(batch.queue, run, size, due_ms)],
                removes=removals(settled),
                request=(batch.queue, batch.request_id, *receipt[:2]) if batch.request_id else None,
                done=written,
            )
        )
        self._after(settled, now, woken)
        return answer

    def _repeated(self, known: int | Future[Receipt]) -> Receipt | Future[Receipt]:
        if not isinstance(known, Future):
            return super()._repeated(known)
        answer: Future[Receipt] = Future()

        def written(first: Future[Receipt]) -> None:
            error = first.exception()
            if error is None:
                answer.set_result(first.result()._replace(duplicate=True))
            else:
                answer.set_exception(error)

        known.add_done_callback(written)
        return answer

    # -- delivering ---------------------------------------------------------------------------------------------------

    def _leased(self, consumer: LocalConsumer, leases: list[Lease]) -> list[Lease]:
        assert self._journal is not None
        if leases and not consumer.no_ack:
            if not self._unrecorded:
                self._journal.expect_lazy()
            self._unrecorded.add(leases)
        elif leases:
            # At most once: sent when it is on the disk that they are gone, not earlier.
            consumer.coming += len(leases)
            size = sum(lease.entry.size for lease in leases)
            removes = removals({consumer.queue: Settled(leases, size)})
            self._write(Change(removes=removes, done=partial(self._removed, consumer, leases)))
            leases = []
        self._write_lazily(expired(consumer.queue))
        self._top_up(consumer.queue)
        return leases

    def _removed(self, consumer: LocalConsumer, leases: list[Lease], error: StiQueueError | None) -> None:
        """Let a `no_ack` consumer have what is gone. Called on the journal's thread."""
        woken: Wakes = []
        with self._lock:
            consumer.coming -= len(leases)
            if error is None:
                consumer.inbox += leases
                consumer.nudge(woken)
        call(woken)

    def _attempts(self) -> list[Update]:
        """Return the attempts to record: of leases that have lasted a while. Called on the journal's thread."""
        with self._lock:
            updates = self._unrecorded.take(self._clock.monotonic() - (0.0 if self._closed else RECORD_SECONDS))
            if self._unrecorded and self._journal is not None:
                self._journal.expect_lazy()
            return updates

    # -- settling -----------------------------------------------------------------------------------------------------

    def _settled(
        self, outcome: Outcome, settled: dict[Queue, Settled], stale: list[str]
    ) -> list[str] | Future[list[str]]:
        if not settled or outcome is Outcome.EXTEND:
            return stale
        # What else became of them is on its way already (`_carry_off`): an empty change is done when all before it are.
        return self._written(Change(removes=removals(settled) if outcome is Outcome.ACK else []), stale)

    def flush(self) -> Future[None]:
        """Return what is done when all changes made so far are safe."""
        return self._written(Change(), None)

    def _written(self, change: Change, answer: T) -> Future[T]:
        """Write `change`; the Future has `answer` when it is safe."""
        safe: Future[T] = Future()
        change.done = lambda error: safe.set_result(answer) if error is None else safe.set_exception(error)
        self._write(change)
        return safe

    def _carry_off(self, queue: Queue, now: float, woken: Wakes) -> None:
        self._write_lazily(expired(queue))
        self._write_lazily(returned(queue, self._clock.wall() * 1000, now))
        dead, queue.pending.fallout.dead = queue.pending.fallout.dead, []
        if not dead:
            return
        target, name = self._dead_letter_queue(queue), queue.pending.name
        letters = [dead_letter(entry, name, reason, target.reserve(1)) for entry, reason in dead]
        target.coming += len(letters)
        for entry, _ in dead:
            queue.due_ms.pop(entry.id, None)

        def written(error: StiQueueError | None) -> None:
            woken: Wakes = []
            with self._lock:
                target.coming -= len(letters)
                if error is None:
                    for letter in letters:
                        target.pending.add(Run.of(letter), letter.size)
                    self._after([target], self._clock.monotonic(), woken)
            call(woken)

        self._write(
            Change(
                inserts=[Insert(target.pending.name, Run.of(letter), letter.size) for letter in letters],
                removes=removed(name, [entry for entry, _ in dead]),
                done=written,
            )
        )

    # -- the part of a queue that is not in memory --------------------------------------------------------------------

    def _is_filling(self, queue: Queue) -> bool:
        return any(lane.stored for lane in queue.pending.lanes.values())

    def _top_up(self, queue: Queue) -> None:
        """Have more of the queue read when little of it is left in memory."""
        for priority, lane in queue.pending.hungry():
            lane.loading = True
            self._read(queue, priority, lane.edge, PAGE_MESSAGES, partial(self._loaded, queue, priority))

    def _loaded(self, queue: Queue, priority: int, runs: list[Run]) -> None:
        """Take in a page. Called on the journal's thread, which an error here ends."""
        if not runs:
            raise StoreDamaged(f"{self.path}: messages of queue {queue.pending.name} are missing")
        woken: Wakes = []
        with self._lock:
            if self._journal is None:  # closed meanwhile
                return
            now = self._clock.monotonic()
            queue.pending.load(priority, runs, now)
            self._after([queue], now, woken)
            self._top_up(queue)
        call(woken)

    def _load(self, queue: Queue, priority: int, after_id: int, limit: int) -> Future[list[Entry]]:
        answer: Future[list[Entry]] = Future()

        def loaded(runs: list[Run]) -> None:
            answer.set_result([entry for run in runs for entry in run.entries()])

        self._read(queue, priority, after_id, limit, loaded)
        return answer

    def _read(self, queue: Queue, priority: int, after_id: int, limit: int, done: Callable[[list[Run]], None]) -> None:
        def read(rows: list[Row]) -> None:
            done(Reader(priority, *self._times()).runs(rows))

        assert self._journal is not None
        self._journal.load(queue.pending.name, priority, after_id, limit, read)
