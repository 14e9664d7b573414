"""A subscription to a queue of this process, and the queue's line of those that wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from stiqueue.lease import Lease, Owner
from stiqueue.message import Subscription
from stiqueue.pending import Pending

Wakes = list[Callable[[], None]]
"""Consumers to wake once the lock is released."""


class Queue:
    """One queue's messages and the consumers that wait for them. Not thread-safe: guarded by its engine's lock."""

    __slots__ = ("coming", "coming_bytes", "due_ms", "line", "next_id", "pending")

    def __init__(self, pending: Pending, next_id: int) -> None:
        self.pending = pending
        self.next_id = next_id
        self.line: dict[LocalConsumer, None] = {}
        """Consumers with credit and nothing to do, the longest waiting first."""
        self.coming = 0
        """Messages that are being written and cannot be delivered yet."""
        self.coming_bytes = 0
        self.due_ms: dict[int, int] = {}
        """The due times that the journal has, by message."""

    @property
    def name(self) -> str:
        return self.pending.name

    @property
    def messages(self) -> int:
        """How many messages it has, those included that are being written."""
        return len(self.pending) + self.coming

    @property
    def bytes(self) -> int:
        """How many bytes of bodies and headers they have."""
        return self.pending.bytes + self.coming_bytes

    @property
    def in_use(self) -> bool:
        """Whether it holds messages or has consumers."""
        return bool(self.pending.owners) or self.coming > 0 or len(self.pending) > 0

    def reserve(self, number: int) -> int:
        """Return the first of `number` new ids."""
        first = self.next_id
        self.next_id += number
        return first


class Desk(Protocol):
    """The engine, as far as its consumers are concerned."""

    def take(self, consumer: LocalConsumer) -> list[Lease] | None: ...

    def take_locked(self, consumer: LocalConsumer) -> list[Lease] | None: ...

    def patience(self, consumer: LocalConsumer) -> float | None: ...

    def finish(self, consumer: LocalConsumer) -> None: ...

    def release(self, consumer: LocalConsumer) -> None: ...


class LocalConsumer(Owner):
    """One subscription to a queue of a `LocalEngine`; see `stiqueue.engine.Consumer`.

    Its state is guarded by the engine's lock, so the engine does the work; the public methods are names for callers.
    """

    __slots__ = (
        "_condition",
        "_desk",
        "_wake",
        "closed",
        "coming",
        "finishing",
        "idle_since",
        "inbox",
        "queue",
        "wait",
    )

    def __init__(
        self, desk: Desk, queue: Queue, asked: Subscription, wake: Callable[[], None] | None, lock: threading.Lock
    ) -> None:
        super().__init__(
            asked.consumer, asked.prefetch, asked.prefetch_bytes, asked.max_messages, asked.no_ack, asked.ack_timeout
        )
        self._desk = desk
        self._wake = wake
        self._condition = None if wake else threading.Condition(lock)
        self.queue = queue
        self.wait = asked.wait
        self.inbox: list[Lease] = []
        """Handed over and not yet taken."""
        self.coming = 0
        """Messages that will be in `inbox` once their removal is written (`no_ack`)."""
        self.idle_since: float | None = None
        """Since when it holds nothing and waits for messages."""
        self.finishing = False
        self.closed = False

    @property
    def is_thread(self) -> bool:
        """Whether a thread waits for it, with `take_waiting`."""
        return self._condition is not None

    def take(self) -> list[Lease] | None:
        return self._desk.take(self)

    def take_waiting(self) -> list[Lease] | None:
        """Like `take`, but block the calling thread until there is something or the subscription has ended."""
        assert self._condition is not None, "subscribed with a callback"
        with self._condition:
            while (leases := self._desk.take_locked(self)) == []:
                self._condition.wait(self.wait)
        return leases

    def patience(self) -> float | None:
        return self._desk.patience(self)

    def finish(self) -> None:
        self._desk.finish(self)

    def close(self) -> None:
        self._desk.release(self)

    def ended(self, now: float) -> bool:
        """Whether nothing can come any more: finished, given all it asked for, or idle too long."""
        if self.held or self.coming:
            return False
        if self.finishing or self.left <= 0:
            return True
        return self.wait is not None and self.idle_since is not None and now - self.idle_since >= self.wait

    def take_handed(self, woken: Wakes | None = None) -> list[Lease]:
        """Take what was handed over, if anything; who is `woken` for that alone is left in peace."""
        leases, self.inbox = self.inbox, []
        if leases and woken and not self.has_credit():  # else it has to stand in line again
            woken[:] = [wake for wake in woken if wake != self._wake]
        return leases

    def nudge(self, woken: Wakes) -> None:
        """Let it call `take` again: a thread at once, a callback after the lock is released."""
        if self._condition is not None:
            self._condition.notify()
        elif self._wake is not None:
            woken.append(self._wake)


def consumer_of(owner: Owner) -> LocalConsumer:
    """Return `owner` as what all owners of a local engine are."""
    assert isinstance(owner, LocalConsumer)
    return owner


def call(woken: Wakes) -> None:
    """Wake consumers, now that the lock is released."""
    for wake in woken:
        wake()
