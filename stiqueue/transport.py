"""How a client reaches its queues: the seam between the names that users type and a server, or a local queue.

The coroutines of a blocking transport never suspend, see `stiqueue.concurrency`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from stiqueue.errors import StiQueueError
from stiqueue.message import Batch, Counts, Delivered, PeekedMessage, PeekQuery, Receipt, Settlement, Subscription

Acked = Callable[[list[str], "list[str] | StiQueueError"], None]
"""Told of leases that were acked in the background: (leases, those of them that were stale, or why it failed).
Called on any thread; must not block."""


class Exchanged(NamedTuple):
    """What an ack was answered that takes the next messages."""

    was_held: bool
    """False: the ack came too late, the message is delivered again."""
    messages: Sequence[Delivered]
    """What is next; empty: it comes on the stream."""


class Stream(Protocol):
    """A subscription as a client sees it. For one thread or task at a time, except `cancel`."""

    async def next(self) -> Sequence[Delivered] | None:
        """Wait for the next messages; None when the subscription has ended.

        Raises:
            Unavailable: the connection is lost; what was unsettled is given back.
        """
        ...

    async def connected(self) -> bool:
        """After `next` raised: return whether the server had accepted the subscription."""
        ...

    def cancel(self) -> None:
        """End it; what is unsettled goes back. From any thread, safe to call twice."""
        ...


class Look(Protocol):
    """A look at the messages of a queue, chunk by chunk. For one thread or task."""

    async def next(self) -> list[PeekedMessage] | None:
        """Wait for the next messages; None when there are no more.

        Raises:
            Unavailable: the connection is lost.
        """
        ...

    def cancel(self) -> None:
        """End it."""
        ...


class Transport(Protocol):
    """The five operations. Each waits for an absent server for up to `timeout` seconds, then raises `Unavailable`."""

    async def enq(self, batch: Batch, timeout: float) -> Receipt: ...

    def enq_soon(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
        """Begin to enqueue; the function returned waits for the receipt."""
        ...

    async def settle(self, settlement: Settlement, timeout: float) -> list[str]: ...

    def ack_soon(self, lease_id: str, done: Acked) -> None:
        """Ack in the background, together with others."""
        ...

    async def exchange(self, lease_id: str) -> Exchanged:
        """Ack a lease and take the next messages of its stream.

        Raises:
            Unavailable: the connection is lost; what the stream held, and perhaps this message, is given back.
        """
        ...

    async def counts(self, queues: Sequence[str], timeout: float) -> list[Counts]: ...

    async def peek(self, query: PeekQuery, timeout: float) -> list[PeekedMessage]: ...

    def look(self, query: PeekQuery) -> Look:
        """Look without keeping all in memory; an absent server is not waited for."""
        ...

    def subscribe(self, subscription: Subscription) -> Stream: ...

    async def close(self) -> None: ...
