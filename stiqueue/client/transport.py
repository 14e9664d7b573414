"""How a client reaches its queues: the seam between the names that users type and a server, or a local queue.

The coroutines of a blocking transport never suspend, see `stiqueue.client.waiting.concurrency`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

from stiqueue.errors import StiQueueError
from stiqueue.message import Batch, Counts, Delivered, PeekedMessage, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport

Acked = Callable[[list[str], "list[str] | StiQueueError"], None]
"""Called after an ack in the background with (leases, the stale ones among them or an error), on any thread. Must not
block."""


class Exchanged(NamedTuple):
    """The answer to an ack that also takes the next messages."""

    was_held: bool
    """False: the ack came too late, and the server delivers the message again."""
    messages: Sequence[Delivered]
    """The next messages; empty: they come on the stream."""


class Stream(Protocol):
    """A subscription as a client sees it. For one thread or task at a time, except `cancel`."""

    async def next(self) -> Sequence[Delivered] | None:
        """Wait for the next messages; None when the subscription has ended.

        Raises:
            Unavailable: the connection is lost, and its unsettled messages go back.
        """
        ...

    @property
    def leased_ids(self) -> Sequence[int]:
        """After `next`: the ids in `Subscription.ids` whose messages others hold."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether the stream and its leases have ended, even if `next` has not reported it yet."""
        ...

    def holding(self) -> Callable[[str], bool]:
        """Return a function that tells whether a lease may still be held, for messages that `next` just returned.

        Any thread may call it, with a lease id. False: the lease is gone for certain.
        """
        ...

    async def connected(self) -> bool:
        """After `next` raised: return whether the server had accepted the subscription."""
        ...

    async def finish(self, lease_ids: Sequence[str], timeout: float) -> list[str]:
        """Stop deliveries on the stream; the server ends it once all its leases are settled.

        Args:
            lease_ids: leases of this stream, which identify it to the server.
            timeout: seconds to wait for an absent server.

        Returns:
            The ids in `lease_ids` whose leases have ended.
        """
        ...

    def cancel(self) -> None:
        """End it; its unsettled messages go back. From any thread; harmless when repeated."""
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

    reaches: str
    """The address or file that it keeps open, for people; empty if none."""

    async def enq(self, batch: Batch, timeout: float) -> Receipt: ...

    def named(self, batch: Batch) -> Batch:
        """Return `batch` with a request id, if it needs one to be enqueued once by several calls of `enq`."""
        ...

    def begin_enq(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
        """Begin to enqueue; the function returned waits for the receipt."""
        ...

    async def settle(self, settlement: Settlement, timeout: float) -> list[str]: ...

    def ack_soon(self, lease_id: str, done: Acked) -> None:
        """Ack in the background, together with other acks."""
        ...

    async def exchange(self, lease_id: str, timeout: float) -> Exchanged:
        """Ack a lease and take the next messages of its stream.

        Raises:
            Unavailable: the connection is lost. The stream's messages go back, perhaps with this one.
        """
        ...

    async def counts(self, queues: Sequence[str], timeout: float) -> list[Counts]: ...

    async def peek(self, query: PeekQuery, timeout: float) -> list[PeekedMessage]: ...

    def look(self, query: PeekQuery) -> Look:
        """Look without keeping all messages in memory. Does not wait for an absent server."""
        ...

    def subscribe(self, subscription: Subscription) -> Stream: ...

    async def configure(self, change: QueueSettings, reset: Sequence[str], timeout: float) -> QueueSettings: ...

    async def settings(self, queue: str, timeout: float) -> SettingsReport: ...

    async def close(self) -> None: ...

    async def give_up(self) -> None:
        """Close everything, streams included, because the client is gone."""
        ...
