"""Settles leases: messages are acked, given back, extended or become dead letters."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.consumer import LocalConsumer, Queue, Wakes, call
from stiqueue.engines.local.dispatch import Dispatch, stop_giving
from stiqueue.engines.local.leases import Owned
from stiqueue.engines.local.recorder import Recorder
from stiqueue.engines.local.settling import Settle, Settled, way_of
from stiqueue.message import Outcome, Settlement
from stiqueue.rules.backlog import Backlog
from stiqueue.rules.later import Answer
from stiqueue.rules.lease import Lease

A = TypeVar("A", bound=Answer[list[str]])


class Settlements:
    """Settles the leases of one engine. Thread-safe but for `finish_each`."""

    def __init__(self, lock: threading.Lock, clock: Clock, dispatch: Dispatch, recorder: Recorder | None) -> None:
        """Settle leases that `dispatch` gave; `lock` is the engine's. Without a log, `recorder` is None."""
        self._lock = lock
        self._clock = clock
        self._dispatch = dispatch
        self._leases = dispatch.leases
        self._recorder = recorder

    def settle(self, settlement: Settlement, later: Callable[[], A]) -> list[str] | A:
        """Settle leases; return the stale ones, or an answer made by `later` that gets them when the change is safe."""
        woken: Wakes = []
        with self._lock:
            now = self._clock.monotonic()
            outcome = settlement.outcome
            owned, stale = self._leases.find(settlement.lease_ids, remove=outcome is not Outcome.EXTEND)
            late = self._settle_late(stale, outcome, now, woken) if stale else {}
            closing = {**dict.fromkeys(owned), **late} if settlement.close_stream else {}
            for consumer in closing:
                stop_giving(consumer, woken)
            if settlement.close_stream and settlement.untouched:
                settled = {consumer.queue: Settled() for consumer in closing}
                if settlement.delay:
                    settled |= self._settle_each(owned, way_of(settlement, now), now, woken)
                for consumer in closing:
                    self._dispatch.drop(consumer, now, woken, untouched=True)
            else:
                settled = self._settle_each(owned, way_of(settlement, now), now, woken)
            self._dispatch.after(
                [*settled, *(consumer.queue for consumer in late if consumer.queue not in settled)], now, woken
            )
            answer: list[str] | A = stale
            if self._recorder is not None and settled and outcome is not Outcome.EXTEND:
                answer = waiting = later()
                self._recorder.settled(settled, outcome is Outcome.ACK, waiting, stale)
        call(woken)
        return answer

    def exchange(self, lease_id: str) -> list[Lease] | None:
        """Ack a lease and take its consumer's next messages; see `stiqueue.rules.engine.Engine.exchange`."""
        woken: Wakes = []
        given: list[Lease] | None = None
        with self._lock:
            now = self._clock.monotonic()
            consumer = self._leases.pop(lease_id)
            if consumer is None:
                self._dispatch.after(
                    [each.queue for each in self._settle_late([lease_id], Outcome.ACK, now, woken)], now, woken
                )
            else:
                settled = self._settle_each({consumer: [consumer.held[lease_id]]}, Backlog.ack, now, woken)
                self._dispatch.after(settled, now, woken)
                if self._recorder is not None:
                    self._recorder.acked(settled)
                given = consumer.take_handed(woken)
        call(woken)
        return given

    def queue_of(self, lease_id: str) -> str | None:
        """See `stiqueue.rules.engine.Engine.queue_of`."""
        with self._lock:
            consumer = self._leases.holder(lease_id)
            return None if consumer is None else consumer.queue.name

    def finish_each(self, owned: Owned, now: float, woken: Wakes) -> dict[Queue, Settled]:
        """Ack leases that are held. The lock is held."""
        for leases in owned.values():
            self._leases.remove([lease.lease_id for lease in leases])
        return self._settle_each(owned, Backlog.ack, now, woken)

    def _settle_each(self, owned: Owned, settle: Settle, now: float, woken: Wakes) -> dict[Queue, Settled]:
        """Settle leases, and put their consumers back in line; return the leases by queue."""
        settled: dict[Queue, Settled] = {}
        for consumer, leases in owned.items():
            of_queue = settled.setdefault(consumer.queue, Settled())
            arrears = list(consumer.arrears)
            of_queue.keyed |= bool(consumer.queue.backlog.ready.strands)
            of_queue.size += settle(consumer.queue.backlog, consumer, leases) or 0
            of_queue.leases += leases
            if not consumer.arrears:
                self._leases.forget(arrears)
            self._leases.settled(consumer, leases[-1])
            self._dispatch.freed(consumer, now, woken)
        return settled

    def _settle_late(self, stale: list[str], outcome: Outcome, now: float, woken: Wakes) -> dict[LocalConsumer, None]:
        """Note a late settlement of leases; return their consumers, as far as known."""
        settles = outcome is not Outcome.EXTEND
        late = self._leases.late(stale, settles)
        for consumer in late if settles else ():
            self._dispatch.freed(consumer, now, woken)
        return late
