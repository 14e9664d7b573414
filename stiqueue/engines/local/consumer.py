"""A queue of this process, and a subscription to it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from stiqueue.limits import dead_letter_queue
from stiqueue.message import Subscription
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules.backlog import Backlog
from stiqueue.rules.lease import Lease, Owner
from stiqueue.rules.run import Run

Wakes = list[Callable[[], None]]
"""Consumers to wake once the lock is released."""


class Queue:
    """One queue: its messages and its consumers. Not thread-safe: guarded by its engine's lock."""

    __slots__ = (
        "ack_timeout",
        "alarm",
        "backlog",
        "coming",
        "coming_bytes",
        "consumers",
        "dead_letter_queue",
        "due_ms",
        "line",
        "max_bytes",
        "max_messages",
        "name",
        "next_id",
        "ttl",
        "writing",
    )

    def __init__(self, backlog: Backlog, next_id: int) -> None:
        self.backlog = backlog
        self.name = backlog.name
        self.next_id = next_id
        self.consumers: dict[LocalConsumer, None] = {}
        self.line: dict[LocalConsumer, None] = {}
        """The consumers with credit that wait for messages, the longest waiting first."""
        self.coming = 0
        """Messages that are being written and cannot be delivered yet."""
        self.coming_bytes = 0
        self.alarm: float | None = None
        """When the timer calls for the queue; None: never."""
        self.due_ms: dict[int, int] = {}
        """The due times that the log has, by message; negative: it was given back, and holds up its key."""
        self.writing: dict[int, list[Callable[[], None]]] = {}
        """Messages with a unique key that are being written, by id, with what to do once their outcome is known."""
        self.max_messages = self.max_bytes = 0
        self.ack_timeout: float | None = None
        """Of leases, for consumers that do not say themselves."""
        self.ttl: float | None = None
        """Of messages without one."""
        self.dead_letter_queue = dead_letter_queue(self.name)

    def obey(self, settings: QueueSettings, resumes_at: float | None) -> None:
        """Have `settings`, all of which are set, from now on; `resumes_at` is when a pause ends by itself."""
        backlog = self.backlog
        backlog.paused, backlog.resumes_at = bool(settings.paused), resumes_at
        backlog.max_leased = settings.max_leased or 0
        backlog.unheld.limit_attempts(settings.max_attempts or 0)
        self.max_messages, self.max_bytes = settings.max_messages or 0, settings.max_bytes or 0
        self.ttl, self.ack_timeout = settings.ttl or None, settings.ack_timeout or None
        self.dead_letter_queue = settings.dead_letter_queue or dead_letter_queue(self.name)
        for consumer in self.consumers:
            consumer.obey(self.ack_timeout)

    @property
    def messages(self) -> int:
        """How many messages it has, including those that are being written."""
        return len(self.backlog) + self.coming

    @property
    def bytes(self) -> int:
        """How many bytes of bodies and headers they have."""
        return self.backlog.tally.bytes + self.coming_bytes

    @property
    def in_use(self) -> bool:
        """Whether it holds messages or has consumers."""
        return bool(self.consumers) or self.coming > 0 or len(self.backlog) > 0

    def reserve(self, number: int) -> int:
        """Return the first of `number` new ids."""
        first = self.next_id
        self.next_id += number
        return first

    def expect(self, number: int, size: int) -> None:
        """Count messages of `size` bytes that are being written."""
        self.coming += number
        self.coming_bytes += size

    def arrived(self, run: Run, size: int, due: float | None, safe: bool) -> None:
        """Take in messages that were expected, ready at `due` (None: at once); if not `safe`, they were refused."""
        self.coming -= len(run)
        self.coming_bytes -= size
        if safe:
            self.backlog.unheld.add(run, size, due)


class Desk(Protocol):
    """The part of the engine that consumers call."""

    def take(self, consumer: LocalConsumer) -> list[Lease] | None: ...

    def take_locked(self, consumer: LocalConsumer) -> list[Lease] | None: ...

    def patience(self, consumer: LocalConsumer) -> float | None: ...

    def finish(self, consumer: LocalConsumer) -> None: ...

    def release(self, consumer: LocalConsumer) -> None: ...


class LocalConsumer(Owner):
    """One subscription to a queue of a `LocalEngine`; see `stiqueue.rules.engine.Consumer`.

    The engine's lock guards its state, so its public methods call the engine.
    """

    __slots__ = (
        "_condition",
        "_desk",
        "_wake",
        "closed",
        "coming",
        "finishing",
        "has_own_timeout",
        "idle_since",
        "inbox",
        "last_settled",
        "leased_ids",
        "queue",
        "wait",
        "wanted",
    )

    def __init__(
        self, desk: Desk, queue: Queue, asked: Subscription, wake: Callable[[], None] | None, lock: threading.Lock
    ) -> None:
        super().__init__(
            asked.consumer,
            asked.prefetch,
            asked.prefetch_bytes,
            asked.max_messages,
            asked.no_ack,
            asked.ack_timeout or queue.ack_timeout,
            asked.concurrency,
            bool(asked.ids),
        )
        self.has_own_timeout = bool(asked.ack_timeout)
        self.leased_ids: Sequence[int] = queue.backlog.leased_ids(asked.ids) if asked.ids else ()
        self.wanted = deque(dict.fromkeys(asked.ids))
        """The ids of messages that it still asks for, if it asked for some by their ids."""
        self._desk = desk
        self._wake = wake
        self._condition = None if wake else threading.Condition(lock)
        self.queue = queue
        self.wait = asked.wait
        self.inbox: list[Lease] = []
        """Leases handed over and not yet taken."""
        self.coming = 0
        """With `no_ack`: messages that enter `inbox` once their removal is safe."""
        self.last_settled: str | None = "" if asked.concurrency else None
        """The lease that it settled last; None if nobody asks for it."""
        self.idle_since: float | None = None
        """When it began to hold nothing and wait; None: it does not."""
        self.finishing = False
        self.closed = False

    def obey(self, ack_timeout: float | None) -> None:
        """Have the `ack_timeout` of its queue for leases from now on, unless it has its own."""
        if not self.has_own_timeout:
            self.ack_timeout = ack_timeout

    @property
    def is_thread(self) -> bool:
        """Whether a thread waits for it, with `take_waiting`."""
        return self._condition is not None

    def take(self) -> list[Lease] | None:
        return self._desk.take(self)

    def take_waiting(self) -> list[Lease] | None:
        """Like `take`, but block the calling thread until messages come or the subscription ends."""
        assert self._condition is not None, "subscribed with a callback"
        with self._condition:
            while (leases := self._desk.take_locked(self)) == []:
                # While it holds messages it is not idle, and settling the last one wakes it.
                self._condition.wait(None if self.idle_since is None else self.wait)
        return leases

    def patience(self) -> float | None:
        return self._desk.patience(self)

    def finish(self) -> None:
        self._desk.finish(self)

    def close(self) -> None:
        self._desk.release(self)

    def unsent(self) -> list[Lease]:
        return self.inbox

    def ended(self, now: float) -> bool:
        """Whether it has ended: it is finished, was given all it asked for, or was idle for too long."""
        if self.held or self.coming:
            return False
        if self.finishing or self.left <= 0:
            return True
        if self.is_exact:
            return not self.wanted
        return self.wait is not None and self.idle_since is not None and now - self.idle_since >= self.wait

    def take_handed(self, woken: Wakes | None = None) -> list[Lease]:
        """Take the inbox; remove its wake-up from `woken`, unless it must stand in line again."""
        leases, self.inbox = self.inbox, []
        if leases and woken and not self.has_credit():  # else it has to stand in line again
            woken[:] = [wake for wake in woken if wake != self._wake]
        return leases

    def nudge(self, woken: Wakes) -> None:
        """Make it call `take` again: notify its thread now, or add its callback to `woken`."""
        if self._condition is not None:
            self._condition.notify()
        elif self._wake is not None:
            woken.append(self._wake)


def call(woken: Wakes) -> None:
    """Wake consumers. Call it without the lock."""
    for wake in woken:
        wake()
