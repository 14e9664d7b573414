"""New messages: checked, numbered, and put into their queue, at once or once the log has them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple, TypeVar

from stiqueue.engines.bounds import OVERHEAD_BYTES, Quota
from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import Change, Insert, LaneName
from stiqueue.engines.local.consumer import Queue, Wakes, call
from stiqueue.engines.local.dispatch import Dispatch
from stiqueue.engines.local.leases import Owned
from stiqueue.engines.local.log import KeptRequest, Log
from stiqueue.engines.local.queues import Queues
from stiqueue.engines.local.recorder import freeing, removals
from stiqueue.engines.local.settlements import Settlements
from stiqueue.errors import StiQueueError
from stiqueue.limits import headers_size
from stiqueue.message import NO_HEADERS, Batch, Durability, Receipt
from stiqueue.rules.entry import Properties
from stiqueue.rules.later import Answer
from stiqueue.rules.lease import Lease
from stiqueue.rules.recent import Recent, pack_ids, unpack_ids
from stiqueue.rules.run import Run

A = TypeVar("A", bound=Answer[Receipt])


class _Accepted(NamedTuple):
    """A request that was checked: what has to be done, and the receipt for it."""

    batch: Batch
    queue: Queue
    run: Run | None
    """The new messages. None: they, or one with their unique key, came before."""
    size: int
    receipt: Receipt
    acked: Owned
    now: float
    woken: Wakes


class Arrivals:
    """Takes in the messages of one engine. Thread-safe."""

    def __init__(
        self,
        lock: threading.Lock,
        clock: Clock,
        quota: Quota,
        queues: Queues,
        dispatch: Dispatch,
        settlements: Settlements,
        log: Log | None,
    ) -> None:
        """Put messages into `queues`, and into `log` if there is one; `lock` is the engine's."""
        self._lock = lock
        self._clock = clock
        self._quota = quota
        self._queues = queues
        self._dispatch = dispatch
        self._settlements = settlements
        self._log = log
        self._durability = Durability.MEMORY if log is None else log.durability
        self._recent: Recent[int | list[Answer[Receipt]]] = Recent(clock.monotonic())
        """Results by request id: packed ids, or until these are safe the answers to give, the first to the first."""

    def restore(self, requests: list[KeptRequest], now: float) -> None:
        """Remember requests that a log has. The lock is held."""
        for queue, request_id, first_id, count in requests:
            self._recent.remember(queue, request_id, pack_ids(first_id, count), now)

    def submit(self, batch: Batch, later: Callable[[], A]) -> Receipt | A:
        """Enqueue, see `stiqueue.rules.engine.Engine.enq`; with a log, return what `later` makes, which is answered."""
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
            batch.key,
            batch.unique_key,
        )
        woken: Wakes = []
        with self._lock:
            self._queues.check_open()
            known = self._recent.get(batch.queue, batch.request_id, now) if batch.request_id else None
            answer: Receipt | A
            if known is not None:
                answer = self._repeated(batch, known, later, now, woken)
            else:
                answer = self._begin(batch, size, properties, later, now, wall, woken)
        call(woken)
        return answer

    def _begin(
        self,
        batch: Batch,
        size: int,
        properties: Properties,
        later: Callable[[], A],
        now: float,
        wall: float,
        woken: Wakes,
    ) -> Receipt | A:
        """Enqueue what was not enqueued before. The lock is held."""
        number = len(batch.bodies)
        queue = self._queues.open(batch.queue)
        acked: Owned = {}
        done: list[Lease] = []
        here: list[Lease] = []  # of `done`, those of the same queue
        if batch.ack_lease_ids:
            acked = self._dispatch.leases.held(batch.ack_lease_ids)
            done = [lease for leases in acked.values() for lease in leases]
            here = [lease for consumer, leases in acked.items() if consumer.queue is queue for lease in leases]
        if queue.ttl is not None and batch.ttl is None:
            expires_ms = int((wall + queue.ttl) * 1000)
            properties = replace(properties, expires_at=now + queue.ttl, expires_ms=expires_ms)
        same = None
        if batch.unique_key:
            same = queue.backlog.uniques.holder(batch.unique_key, now, {lease.id for lease in here})
        writing = None if same is None else queue.writing.get(same)
        if writing is not None:  # whether there will be another is not known yet
            waiting = later()
            writing.append(lambda: self._submit_again(batch, waiting))
            return waiting
        if same is not None:
            receipt = Receipt(same, 1, True, self._durability)
            return self._accept(_Accepted(batch, queue, None, 0, receipt, acked, now, woken), later)
        self._quota.check(
            queue,
            self._queues.each(),
            number - len(here),
            size - sum(lease.entry.size for lease in here),
            size + number * OVERHEAD_BYTES - sum(lease.entry.size + OVERHEAD_BYTES for lease in done),
        )
        if self._log is not None:
            self._log.check(LaneName(batch.queue, batch.priority, batch.key))
        run = Run(queue.reserve(number), batch.bodies, properties)
        if batch.unique_key:
            queue.backlog.uniques.claim(run.first_id, properties)
        receipt = Receipt(run.first_id, number, False, self._durability)
        return self._accept(_Accepted(batch, queue, run, size, receipt, acked, now, woken), later)

    def _repeated(
        self, batch: Batch, known: int | list[Answer[Receipt]], later: Callable[[], A], now: float, woken: Wakes
    ) -> Receipt | A:
        """Answer a request that is known, and ack what it still holds. The lock is held."""
        acked, _ = self._dispatch.leases.find(list(dict.fromkeys(batch.ack_lease_ids)), remove=False)
        if not isinstance(known, int):  # not written yet
            repeated = later()
            known.append(_Then(lambda: self._submit_again(batch, repeated), repeated) if acked else repeated)
            return repeated
        receipt = Receipt(*unpack_ids(known), True, self._durability)
        if not acked:
            return receipt
        anonymous = batch._replace(request_id="")  # which is remembered already
        queue = self._queues.open(batch.queue)
        return self._accept(_Accepted(anonymous, queue, None, 0, receipt, acked, now, woken), later)

    def _submit_again(self, batch: Batch, answer: Answer[Receipt]) -> None:
        """Enqueue once it is known whether there is another message with its unique key. Called on the log's thread."""
        try:
            receipt = self.submit(batch, lambda: answer)
        except StiQueueError as error:
            answer.set_exception(error)
        else:
            if isinstance(receipt, Receipt):
                answer.set_result(receipt)

    def _accept(self, accepted: _Accepted, later: Callable[[], A]) -> Receipt | A:
        """Take in what has to be taken in; return the receipt, or its answer if that has to be written first."""
        if self._log is None or not (accepted.run is not None or accepted.acked or accepted.batch.request_id):
            self._take_in(accepted)
            return accepted.receipt
        answer = later()
        self._append(self._log, accepted, answer)
        return answer

    def _take_in(self, accepted: _Accepted) -> None:
        """Take in new messages, if there are any, and ack leases, in memory alone."""
        batch, queue, run, size, receipt, acked, now, woken = accepted
        if run is not None:
            queue.backlog.unheld.add(run, size, now + batch.delay if batch.delay else None)
        if batch.request_id:
            self._recent.remember(batch.queue, batch.request_id, pack_ids(*receipt[:2]), now)
        settled = self._settlements.finish_each(acked, now, woken) if acked else {}
        self._dispatch.after({queue: None, **settled} if settled else (queue,), now, woken)

    def _append(self, log: Log, accepted: _Accepted, answer: Answer[Receipt]) -> None:
        """Write new messages, if there are any, which join the queue once that is safe, and that leases are acked."""
        batch, queue, run, size, receipt, acked, now, woken = accepted
        answers = [answer]
        others: list[Callable[[], None]] = []
        due = now + batch.delay if batch.delay else None
        due_ms = int((self._clock.wall() + batch.delay) * 1000) if batch.delay else None
        if run is not None:
            queue.expect(len(run), size)
            if batch.unique_key:
                queue.writing[run.first_id] = others
        if batch.request_id:
            self._recent.remember(batch.queue, batch.request_id, answers, now)

        def then(error: StiQueueError | None, now: float, woken: Wakes) -> Sequence[Queue]:
            freed = () if free is None else free(error, now, woken)
            if run is not None and due_ms is not None and error is None:
                queue.due_ms.update(dict.fromkeys(run.ids, due_ms))
            if batch.request_id and error is None:
                self._recent.remember(batch.queue, batch.request_id, pack_ids(*receipt[:2]), now)
            elif batch.request_id:
                self._recent.forget(batch.queue, batch.request_id)
            if run is None:
                return freed
            if batch.unique_key:
                del queue.writing[run.first_id]
                if error is not None:
                    queue.backlog.uniques.free(run.first_id, run.properties)
            queue.arrived(run, size, due, error is None)
            return queue, *freed

        def tell(error: StiQueueError | None) -> None:
            for number, each in enumerate(answers):
                if error is not None:
                    each.set_exception(error)
                else:
                    each.set_result(receipt._replace(duplicate=True) if number else receipt)
            for other in others:
                other()

        settled = self._settlements.finish_each(acked, now, woken) if acked else {}
        free = freeing(settled)
        log.append(
            Change(
                inserts=[] if run is None else [Insert(batch.queue, run, size, due_ms)],
                removes=removals(settled),
                request=(batch.queue, batch.request_id, *receipt[:2]) if batch.request_id else None,
                then=then,
                tell=tell,
            )
        )
        self._dispatch.after(settled, now, woken)


class _Then:
    """An `Answer` after which something is done, or another answer fails."""

    def __init__(self, action: Callable[[], None], otherwise: Answer[Receipt]) -> None:
        self._action = action
        self._otherwise = otherwise

    def set_result(self, _: Receipt, /) -> None:
        self._action()

    def set_exception(self, exception: BaseException, /) -> None:
        self._otherwise.set_exception(exception)
