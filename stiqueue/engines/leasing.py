"""Who is given what: the leases of all queues, and the consumers that wait in line for messages.

A message that becomes ready is handed to the consumer that has waited longest: one wake-up a message. Looking for a
message, checking that the consumer is there and recording the lease are one critical section, so a consumer that
vanishes loses nothing: its `close` gives back what it holds.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable
from concurrent.futures import Future
from itertools import repeat
from operator import itemgetter
from typing import TypeVar

from stiqueue.clock import Clock
from stiqueue.engines.consumer import LocalConsumer, Queue, Wakes, call, consumer_of
from stiqueue.engines.settling import Settle, Settled, by_owner, missing, settler
from stiqueue.errors import LeaseStale
from stiqueue.lease import Lease
from stiqueue.message import Outcome, Settlement
from stiqueue.pending import Pending

CHUNK_MESSAGES = 1_000
"""Most messages that are delivered in one step."""
CHUNK_BYTES = 1 << 20
"""Most bytes that are delivered in one step; a larger message goes alone."""

T = TypeVar("T")
_LEASE_ID = itemgetter(0)


class Leasing(ABC):
    """The part of an engine that gives and settles leases. Thread-safe; see `stiqueue.engine.Engine`."""

    def __init__(self, clock: Clock) -> None:
        """Begin without leases."""
        self._clock = clock
        self._lock = threading.Lock()
        """Protects all queues, consumers, leases and alarms: all attributes of an engine, and all they hold. No other
        lock but the journal's is taken while it is held."""
        self._leases: dict[str, Lease] = {}

    # -- what an engine adds ------------------------------------------------------------------------------------------

    @abstractmethod
    def _carry_off(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Record what expired, move dead letters to their queue. The lock is held."""

    @abstractmethod
    def _reschedule(self, queue: Queue) -> None:
        """Set the alarm of `queue` for what is due next. The lock is held."""

    def _leased(self, consumer: LocalConsumer, leases: list[Lease]) -> list[Lease]:
        """Messages were leased, or are gone (`no_ack`); return those that can be sent now. The lock is held."""
        consumer.queue.pending.fallout.expired.clear()
        return leases

    def _is_filling(self, queue: Queue) -> bool:
        """Whether ready messages are on their way into memory. The lock is held."""
        return False

    def _settled(
        self, outcome: Outcome, settled: dict[Queue, Settled], stale: list[str]
    ) -> list[str] | Future[list[str]]:
        """Leases were settled; return those that were `stale`, at once or when that is safe. The lock is held."""
        return stale

    # -- delivering ---------------------------------------------------------------------------------------------------

    def take(self, consumer: LocalConsumer) -> list[Lease] | None:
        """See `stiqueue.engine.Consumer.take`."""
        with self._lock:
            return self.take_locked(consumer)

    def take_locked(self, consumer: LocalConsumer) -> list[Lease] | None:
        """`take`, when the lock is held."""
        if consumer.closed:
            return None
        if consumer.inbox:
            return consumer.take_handed()
        now = self._clock.monotonic()
        line = consumer.queue.line
        line.pop(consumer, None)
        if not consumer.finishing and consumer.has_credit():
            leases = self._lease(consumer, now)
            if leases:
                return leases
            line[consumer] = None
        if consumer.idle_since is None and not consumer.held:
            consumer.idle_since = now
        if consumer.ended(now) and not (consumer in line and self._is_filling(consumer.queue)):
            consumer.closed = True
            line.pop(consumer, None)
            del consumer.queue.pending.owners[consumer]
            return None
        return []

    def _lease(self, consumer: LocalConsumer, now: float) -> list[Lease]:
        """Lease what is ready to `consumer`, in one step with looking for it."""
        if consumer.coming:
            return []
        queue = consumer.queue
        leases = queue.pending.lease(consumer, CHUNK_MESSAGES, CHUNK_BYTES, now)
        if leases:
            consumer.idle_since = None
            if not consumer.no_ack:
                self._leases.update(zip(map(_LEASE_ID, leases), leases, strict=True))
            if consumer.ack_timeout:
                self._reschedule(queue)
        return self._leased(consumer, leases)

    def _hand_over(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Give what is ready to the consumers that wait, the longest waiting first."""
        while queue.line and queue.pending.ready:
            consumer = next(iter(queue.line))
            leases = self._lease(consumer, now)
            if not leases and not queue.pending.has_head():
                break
            # A consumer without room for the next message, which it keeps from nobody, is back in line when it settles.
            del queue.line[consumer]
            if not leases:
                continue
            consumer.inbox = leases
            consumer.nudge(woken)

    def patience(self, consumer: LocalConsumer) -> float | None:
        """See `stiqueue.engine.Consumer.patience`."""
        with self._lock:
            if consumer.wait is None or consumer.idle_since is None:
                return None
            return max(0.0, consumer.idle_since + consumer.wait - self._clock.monotonic())

    def finish(self, consumer: LocalConsumer) -> None:
        """See `stiqueue.engine.Consumer.finish`."""
        woken: Wakes = []
        with self._lock:
            self._stop_giving(consumer, woken)
        call(woken)

    def _stop_giving(self, consumer: LocalConsumer, woken: Wakes) -> None:
        consumer.finishing = True
        consumer.queue.line.pop(consumer, None)
        if not consumer.held:
            consumer.nudge(woken)

    def release(self, consumer: LocalConsumer) -> None:
        """See `stiqueue.engine.Consumer.close`."""
        woken: Wakes = []
        with self._lock:
            self._drop(consumer, self._clock.monotonic(), woken)
        call(woken)

    def _drop(self, consumer: LocalConsumer, now: float, woken: Wakes) -> None:
        """Close `consumer`: what it holds goes back to its old place."""
        if consumer.closed:
            return
        consumer.closed = True
        queue = consumer.queue
        consumer.inbox = []
        queue.line.pop(consumer, None)
        del queue.pending.owners[consumer]
        leases = list(consumer.held.values())
        for lease in leases:
            del self._leases[lease.lease_id]
        queue.pending.give_back(consumer, leases, now)
        consumer.nudge(woken)
        self._after([queue], now, woken)

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> list[str]:
        return await awaited(self.settle_now(settlement))

    def settle_now(self, settlement: Settlement) -> list[str] | Future[list[str]]:
        """Settle; see `stiqueue.engine.Engine.settle`."""
        woken: Wakes = []
        with self._lock:
            now = self._clock.monotonic()
            lease_ids = settlement.lease_ids
            if settlement.outcome is Outcome.EXTEND:
                found = list(map(self._leases.get, lease_ids))
            else:
                found = list(map(self._leases.pop, lease_ids, repeat(None)))
            leases = [lease for lease in found if lease is not None]
            stale = missing(lease_ids, leases) if len(leases) < len(found) else []
            if settlement.close_stream:
                for owner in {lease.owner for lease in leases}:
                    self._stop_giving(consumer_of(owner), woken)
            settled = self._settle_each(leases, settler(settlement, now), woken)
            self._after(settled, now, woken)
            answer = self._settled(settlement.outcome, settled, stale)
        call(woken)
        return answer

    async def exchange(self, lease_id: str) -> list[Lease] | None:
        return self.exchange_now(lease_id)

    def exchange_now(self, lease_id: str) -> list[Lease] | None:
        """Ack a lease and take what is next; see `stiqueue.engine.Engine.exchange`."""
        woken: Wakes = []
        with self._lock:
            lease = self._leases.pop(lease_id, None)
            if lease is None:
                return None
            settled = self._settle_each([lease], Pending.ack, woken)
            self._after(settled, self._clock.monotonic(), woken)
            self._settled(Outcome.ACK, settled, [])
            given = consumer_of(lease.owner).take_handed(woken)
        call(woken)
        return given

    def queue_of(self, lease_id: str) -> str | None:
        """See `stiqueue.engine.Engine.queue_of`."""
        with self._lock:
            lease = self._leases.get(lease_id)
            return None if lease is None else consumer_of(lease.owner).queue.name

    def _held(self, lease_ids: Iterable[str]) -> list[Lease]:
        """Return the leases of `lease_ids`, all of which must be held, to be settled with an enqueue."""
        leases = [self._leases.get(lease_id) for lease_id in dict.fromkeys(lease_ids)]
        found = [lease for lease in leases if lease is not None]
        if len(found) < len(leases):
            raise LeaseStale(f"ack_lease_ids: {len(leases) - len(found)} of {len(leases)} leases are no longer held")
        return found

    def _finish_each(self, leases: list[Lease], woken: Wakes) -> dict[Queue, Settled]:
        """Ack leases that are held."""
        for lease in leases:
            del self._leases[lease.lease_id]
        return self._settle_each(leases, Pending.ack, woken)

    def _settle_each(self, leases: list[Lease], settle: Settle, woken: Wakes) -> dict[Queue, Settled]:
        """Do `settle` to `leases`, ended ones of which are in the index no more.

        Returns:
            Those of each queue, in whose line their owners are again.
        """
        settled: dict[Queue, Settled] = {}
        for owner, owned in by_owner(leases):
            consumer = consumer_of(owner)
            of_queue = settled.setdefault(consumer.queue, Settled())
            of_queue.size += settle(consumer.queue.pending, owner, owned) or 0
            of_queue.leases += owned
            self._freed(consumer, woken)
        return settled

    def _freed(self, consumer: LocalConsumer, woken: Wakes) -> None:
        """`consumer` settled something: it may be given more, or may be done."""
        if consumer.closed or consumer.inbox:
            return
        if not consumer.finishing and consumer.has_credit():
            consumer.queue.line.setdefault(consumer)
        if not consumer.held:
            consumer.idle_since = self._clock.monotonic()
            if consumer.finishing or consumer.left <= 0 or consumer.wait is not None:
                consumer.nudge(woken)

    def _after(self, touched: Iterable[Queue], now: float, woken: Wakes) -> None:
        """Finish a change: carry off what left by itself, hand over what is ready, set the alarms."""
        for queue in touched:
            if queue.pending.fallout:
                self._carry_off(queue, now, woken)
            if queue.line:
                self._hand_over(queue, now, woken)
            self._reschedule(queue)

    def _run_out(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Do what is due in `queue`: leases that ran out end, and their owners may be given more."""
        ended = queue.pending.tick(now)
        for lease in ended:
            del self._leases[lease.lease_id]
        for consumer in {consumer_of(lease.owner): None for lease in ended}:
            # What it was given and has not looked at yet is another's now.
            consumer.inbox = [lease for lease in consumer.inbox if lease.lease_id in self._leases]
            self._freed(consumer, woken)
        self._after([queue], now, woken)


async def awaited(answer: T | Future[T]) -> T:
    """Return an answer that is there, or await it. A caller that is cancelled does not cancel what is under way."""
    if isinstance(answer, Future):
        return await asyncio.shield(asyncio.wrap_future(answer))
    return answer
