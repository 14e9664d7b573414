"""Writes to the log what happens to messages. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TypeVar

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.attempts import RECORD_SECONDS, Attempts
from stiqueue.engines.local.change import Change, Insert, LaneName, Remove, Then, Update, telling
from stiqueue.engines.local.consumer import LocalConsumer, Queue, Wakes
from stiqueue.engines.local.log import Log
from stiqueue.engines.local.reader import Reader
from stiqueue.engines.local.settling import Settled
from stiqueue.engines.local.timer import Timer
from stiqueue.errors import StiQueueError
from stiqueue.rules.entry import Entry
from stiqueue.rules.fallout import Fallout
from stiqueue.rules.later import Answer
from stiqueue.rules.lease import Lease
from stiqueue.rules.run import Run

ATTEMPTS = ""
"""The name of the alarm for attempts; no queue has it."""

T = TypeVar("T")


class Recorder:
    """Turns events of queues into changes of the log."""

    def __init__(self, log: Log, clock: Clock, timer: Timer[Queue | None], reader: Reader) -> None:
        """Write to `log`; `reader` reads more of a queue once messages of it were leased."""
        self._log = log
        self._clock = clock
        self._timer = timer
        self._reader = reader
        self._attempts = Attempts()
        self._alarm: float | None = None
        """When attempts are looked at next."""

    # -- leases -------------------------------------------------------------------------------------------------------

    def leased(self, consumer: LocalConsumer, leases: list[Lease], now: float) -> list[Lease]:
        """Note new leases; return those that can be sent now."""
        if leases and consumer.no_ack:
            # At most once: sent when their removal is safe, not earlier.
            consumer.coming += len(leases)
            size, keyed = sum(lease.entry.size for lease in leases), any(lease.key for lease in leases)
            removes = removals({consumer.queue: Settled(leases, size, keyed)})
            self._log.append(Change(removes=removes, then=partial(_removed, consumer, leases)))
            leases = []
        elif leases and not consumer.is_exact:
            self._attempts.add(consumer, now)
            self._expect_attempts(now)
        self._reader.top_up(consumer.queue)
        return leases

    def freed(self, consumer: LocalConsumer, now: float) -> None:
        """Note that `consumer` settled something: it may work on messages now that it had not begun before."""
        if consumer.held and consumer.concurrency < consumer.prefetch and not consumer.is_exact:
            self._attempts.look_again(consumer)
            self._expect_attempts(now)

    def _expect_attempts(self, now: float) -> None:
        due = self._attempts.due(now)
        if due is not None and (self._alarm is None or due < self._alarm):
            self._alarm = due
            self._timer.set(ATTEMPTS, due, None)

    def write_attempts(self, now: float) -> None:
        """Write the attempts of leases that have lasted; called when the alarm for attempts is due."""
        lasting = self._attempts.take(now - RECORD_SECONDS)
        if lasting:
            updates = [_update(consumer.queue, lease.entry_after()) for consumer, lease in lasting]
            self._log.append(Change(updates=updates, lazy=True))
        self._alarm = None
        self._expect_attempts(now)

    # -- messages that leave ------------------------------------------------------------------------------------------

    def acked(self, settled: Mapping[Queue, Settled]) -> None:
        """Write that messages are done; nobody waits until that is safe."""
        self._log.append(Change(removes=removals(settled), then=freeing(settled)))

    def settled(self, settled: Mapping[Queue, Settled], done: bool, answer: Answer[T], value: T) -> None:
        """Write that leases were settled, with `done` their messages too; `answer` gets `value` when that is safe.

        Messages that were given back or dead-lettered are in the log already, in changes before this one.
        """
        then, removes = (freeing(settled), removals(settled)) if done else (None, [])
        self._log.append(Change(removes=removes, then=then, tell=telling(answer, value)))

    def left(self, queue: Queue, fallout: Fallout, now: float) -> None:
        """Write which messages expired and which were given back; nobody waits for it."""
        if fallout.expired:
            _forget_due(queue, fallout.expired)
            self._log.append(Change(removes=[Remove(queue.name, fallout.expired)], lazy=True))
        if fallout.returned:
            wall_ms = self._clock.wall() * 1000
            for entry, due in fallout.returned:
                if due is not None:
                    due_ms = int(wall_ms + (due - now) * 1000)
                    queue.due_ms[entry.id] = -due_ms if entry.id in queue.backlog.unheld.holding else due_ms
                elif entry.id in queue.due_ms:  # never none again: it is not among the stored messages that follow
                    queue.due_ms[entry.id] = min(abs(queue.due_ms[entry.id]), int(wall_ms))
            self._log.append(Change(updates=[_update(queue, entry) for entry, _ in fallout.returned], lazy=True))

    def moved(self, queue: Queue, dead: list[Entry], target: Queue, letters: list[Entry]) -> None:
        """Write that messages became dead letters; these join `target` when that is safe."""
        _forget_due(queue, dead)
        inserts = [Insert(target.name, Run.of(letter), letter.size) for letter in letters]
        for insert in inserts:
            target.expect(1, insert.size)

        def then(error: StiQueueError | None, now: float, woken: Wakes) -> Sequence[Queue]:
            for insert in inserts:
                target.arrived(insert.run, insert.size, None, error is None)
            queue.backlog.unheld.free(dead)
            return target, queue

        self._log.append(Change(inserts=inserts, removes=[Remove(queue.name, dead)], then=then))


def removals(settled: Mapping[Queue, Settled]) -> list[Remove]:
    """Return what to remove when the messages of leases are done."""
    removes: list[Remove] = []
    for queue, done in settled.items():
        entries = [entry for _, entry, _, _ in done.leases]
        _forget_due(queue, entries)
        if len(queue.backlog.ready.lanes) == 1 and not done.keyed:  # the usual case: no look at each of a thousand
            lane = LaneName(queue.name, next(iter(queue.backlog.ready.lanes)))
            removes.append(Remove(queue.name, entries, lane, done.size))
        else:
            removes.append(Remove(queue.name, entries))
    return removes


def freeing(settled: Mapping[Queue, Settled]) -> Then | None:
    """Return what frees the keys of messages that are done, once that is safe; None: they have no keys."""
    keyed = {queue: done.leases for queue, done in settled.items() if done.keyed}
    if not keyed:
        return None

    def then(error: StiQueueError | None, now: float, woken: Wakes) -> Sequence[Queue]:
        for queue, leases in keyed.items():
            queue.backlog.unheld.free(lease.entry for lease in leases)
        return list(keyed)

    return then


def _forget_due(queue: Queue, entries: list[Entry]) -> None:
    if queue.due_ms:
        for entry in entries:
            queue.due_ms.pop(entry.id, None)


def _removed(
    consumer: LocalConsumer, leases: list[Lease], error: StiQueueError | None, now: float, woken: Wakes
) -> Sequence[Queue]:
    """Give a `no_ack` consumer the messages whose removal is safe."""
    consumer.coming -= len(leases)
    if error is None:
        consumer.inbox += leases
        consumer.nudge(woken)
    return ()


def _update(queue: Queue, entry: Entry) -> Update:
    return Update(queue.name, entry, queue.due_ms.get(entry.id), entry.properties.expires_ms)
