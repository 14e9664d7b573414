"""Gives ready messages to the consumers that wait in line.

A message that becomes ready goes to the consumer that has waited longest: one wake-up per message. Finding a message,
checking that the consumer is open and recording the lease are one critical section. So a consumer that vanishes loses
nothing: its `close` gives back the messages that it holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable

from stiqueue.engines.bounds import Quota
from stiqueue.engines.clock import Clock
from stiqueue.engines.dead_letters import dead_letter
from stiqueue.engines.local.consumer import LocalConsumer, Queue, Wakes, call
from stiqueue.engines.local.leases import Leases
from stiqueue.engines.local.queues import Queues
from stiqueue.engines.local.reader import Reader
from stiqueue.engines.local.recorder import Recorder
from stiqueue.engines.local.timer import Timer
from stiqueue.rules.lease import Lease
from stiqueue.rules.run import Run

CHUNK_MESSAGES = 1_000
"""The most messages delivered in one step."""
CHUNK_BYTES = 1 << 20
"""The most bytes delivered in one step; a larger message goes alone."""


class Dispatch:
    """Gives the leases of one engine, and ends them with their consumers.

    `take`, `patience`, `finish` and `release` take the engine's lock; call the others with the lock held.
    """

    def __init__(
        self,
        lock: threading.Lock,
        clock: Clock,
        quota: Quota,
        queues: Queues,
        timer: Timer[Queue | None],
        recorder: Recorder | None,
        reader: Reader | None,
    ) -> None:
        """Start without leases; `recorder` and `reader` are None if messages are in memory alone."""
        self._lock = lock
        self._clock = clock
        self._quota = quota
        self._queues = queues
        self._timer = timer
        self._recorder = recorder
        self._reader = reader
        self.leases = Leases()

    # -- for consumers ------------------------------------------------------------------------------------------------

    def take(self, consumer: LocalConsumer) -> list[Lease] | None:
        """See `stiqueue.rules.engine.Consumer.take`."""
        with self._lock:
            return self.take_locked(consumer)

    def take_locked(self, consumer: LocalConsumer) -> list[Lease] | None:
        """`take`, when the lock is held."""
        if consumer.closed:
            return None
        if consumer.inbox:
            return consumer.take_handed()
        now = self._clock.monotonic()
        queue = consumer.queue
        queue.line.pop(consumer, None)
        if not consumer.finishing and consumer.has_credit():
            leases = self._lease(consumer, now)
            if leases:
                return leases
            if not consumer.is_exact:
                queue.line[consumer] = None
        if consumer.idle_since is None and not consumer.held and consumer.room() > 0:
            consumer.idle_since = now
        # While messages are being read from the log, the one that it waits for may be among them.
        backlog = queue.backlog
        if consumer.ended(now) and not (consumer in queue.line and backlog.delivers and backlog.ready.is_filling):
            self._leave(consumer)
            return None
        return []

    def patience(self, consumer: LocalConsumer) -> float | None:
        """See `stiqueue.rules.engine.Consumer.patience`."""
        with self._lock:
            if consumer.wait is None or consumer.idle_since is None:
                return None
            return max(0.0, consumer.idle_since + consumer.wait - self._clock.monotonic())

    def finish(self, consumer: LocalConsumer) -> None:
        """See `stiqueue.rules.engine.Consumer.finish`."""
        woken: Wakes = []
        with self._lock:
            stop_giving(consumer, woken)
        call(woken)

    def release(self, consumer: LocalConsumer) -> None:
        """See `stiqueue.rules.engine.Consumer.close`."""
        woken: Wakes = []
        with self._lock:
            self.drop(consumer, self._clock.monotonic(), woken)
        call(woken)

    # -- with the lock held -------------------------------------------------------------------------------------------

    def drop(self, consumer: LocalConsumer, now: float, woken: Wakes, untouched: bool = False) -> None:
        """Close `consumer` and give back what it holds; `untouched`: its client has begun none of it."""
        if consumer.closed:
            return
        self._leave(consumer)
        consumer.queue.backlog.release(consumer, now, untouched)
        consumer.inbox = []
        consumer.nudge(woken)
        self.after([consumer.queue], now, woken)

    def after(self, touched: Iterable[Queue], now: float, woken: Wakes) -> None:
        """Finish a change of queues: carry off their fallout, hand over ready messages, set the alarms."""
        for queue in touched:
            if queue.backlog.fallout:
                target = self._carry_off(queue, now)
                if target is not None and target.line:
                    self._hand_over(target, now, woken)
            if queue.line:
                self._hand_over(queue, now, woken)
            self._set_alarm(queue)

    def run_out(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Do everything due in `queue`: leases that ran out end, and their consumers may be given more."""
        queue.alarm = None
        for consumer in self.leases.ran_out(queue.backlog.tick(now)):
            # Messages that it has not taken from its inbox may go to others now.
            consumer.inbox = [lease for lease in consumer.inbox if lease.lease_id in consumer.held]
            self.freed(consumer, now, woken)
        self.after([queue], now, woken)

    def freed(self, consumer: LocalConsumer, now: float, woken: Wakes) -> None:
        """Put `consumer` back in line, or let it end: it settled something or lost a lease."""
        if self._recorder is not None:
            self._recorder.freed(consumer, now)
        if consumer.closed or consumer.inbox:
            return
        if consumer.is_exact:
            consumer.nudge(woken)
        elif not consumer.finishing and consumer.has_credit():
            consumer.queue.line.setdefault(consumer)
        if not consumer.held:
            consumer.idle_since = now if consumer.room() > 0 else None
            if consumer.finishing or consumer.left <= 0 or consumer.wait is not None:
                consumer.nudge(woken)

    def _lease(self, consumer: LocalConsumer, now: float) -> list[Lease]:
        """Find and lease ready messages for `consumer` in one step; return those that can be sent now."""
        if consumer.coming:
            return []
        queue = consumer.queue
        if consumer.is_exact:
            leases = queue.backlog.lease_exactly(consumer, consumer.wanted, CHUNK_MESSAGES, CHUNK_BYTES, now)
            if not leases and consumer.wanted and queue.backlog.unheld.is_stored(consumer.wanted[0]):
                assert self._reader is not None
                self._reader.fetch(consumer)
        else:
            leases = queue.backlog.lease(consumer, CHUNK_MESSAGES, CHUNK_BYTES, now)
        if leases:
            consumer.idle_since = None
            if not consumer.no_ack:
                self.leases.add(consumer, leases)
            if consumer.ack_timeout:
                self._set_alarm(queue)
        if queue.backlog.fallout:  # messages that had expired
            self._carry_off(queue, now)
        return leases if self._recorder is None else self._recorder.leased(consumer, leases, now)

    def _set_alarm(self, queue: Queue) -> None:
        due = queue.backlog.next_due()
        if due != queue.alarm:
            queue.alarm = due
            self._timer.set(queue.name, due, queue)

    def _hand_over(self, queue: Queue, now: float, woken: Wakes) -> None:
        """Give ready messages to the consumers that wait, the longest waiting first."""
        while queue.line and queue.backlog.ready and queue.backlog.delivers:
            consumer = next(iter(queue.line))
            leases = self._lease(consumer, now)
            if not leases and not queue.backlog.ready.has_head():
                break
            # A consumer without room for the next message lets others pass; it is back in line when it settles.
            del queue.line[consumer]
            if not leases:
                continue
            consumer.inbox = leases
            consumer.nudge(woken)

    def _carry_off(self, queue: Queue, now: float) -> Queue | None:
        """Record the fallout of `queue`, and move its dead letters; return their queue if they are ready in it now."""
        fallout = queue.backlog.fallout.take()
        if self._recorder is not None:
            self._recorder.left(queue, fallout, now)
        if not fallout.dead:
            return None
        # Made even above `max_queues`: nothing may be lost.
        target = self._queues.make(queue.dead_letter_queue)
        letters = [dead_letter(entry, queue.name, reason, target.reserve(1)) for entry, reason in fallout.dead]
        self._quota.grew(sum(letter.size for letter in letters) - sum(entry.size for entry, _ in fallout.dead))
        if self._recorder is not None:
            self._recorder.moved(queue, [entry for entry, _ in fallout.dead], target, letters)
            return None
        for letter in letters:
            target.backlog.unheld.add(Run.of(letter), letter.size)
        return target

    def _leave(self, consumer: LocalConsumer) -> None:
        """Take `consumer` out of its queue."""
        consumer.closed = True
        consumer.queue.line.pop(consumer, None)
        del consumer.queue.consumers[consumer]
        self.leases.forget_consumer(consumer)


def stop_giving(consumer: LocalConsumer, woken: Wakes) -> None:
    """Give `consumer` no more messages; wake it if it holds none, so that it ends. The lock is held."""
    consumer.finishing = True
    consumer.queue.line.pop(consumer, None)
    if not consumer.held:
        consumer.nudge(woken)
