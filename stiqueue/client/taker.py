"""The `deq` of one thread or task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic

from stiqueue.client.holding import GONE, Holding
from stiqueue.client.session import M


class Taker(Generic[M]):
    """The state between two `deq` of a thread or task. Ends with it, and gives back the messages ahead."""

    __slots__ = ("__weakref__", "last", "leases", "messages", "wait")

    def __init__(self, leases: Holding[M], wait: float | None) -> None:
        """Take messages from `leases`, whose stream ends after `wait` idle seconds."""
        self.leases = leases
        self.wait = wait
        self.last: M | None = None
        """The message that the next `deq` acks, with `auto_ack`."""
        self.messages: Iterator[M] = iter(())
        """With a prefetch: hands out the messages that are here."""

    def __del__(self) -> None:
        self._orphan()

    def goes_on(self, queue: str, wait: float | None) -> bool:
        """Whether the next `deq` can use the same stream."""
        leases = self.leases
        if leases.is_ending or leases.queue != queue:
            return False
        if leases.ends:
            return self.wait == wait and self.last is not None and self.fate() is None
        return self.wait == wait or bool(leases.ahead)

    def fate(self) -> float | None:
        """Return the fate of the last message, see `Holding.unsettled`; GONE: it is settled."""
        return GONE if self.last is None else self.leases.unsettled.get(self.last.lease_id, GONE)

    def end(self) -> None:
        """Note that the task ended well. Before Python 3.12 `asyncio.wait_for` runs each `deq` in its own task."""
        if self.fate() != GONE:
            self.leases.kept = self
        self._orphan()

    def fail(self) -> None:
        """Note that the task failed or was cancelled."""
        self.leases.fail()

    def _orphan(self) -> None:
        leases = self.leases
        if not leases.ends:
            if leases.kept is not self:
                self.last = None  # may end its finalizer
            leases.orphan()
