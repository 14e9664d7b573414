"""What the server needs of an engine: the seam between the RPCs and the place where messages live.

An engine decides order, leases, give-back and durability; it knows nothing of gRPC. The values it is given were
checked by `stiqueue.limits`. All methods are called on the server's event loop and must not block it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from stiqueue.entry import Leased, Peeked
from stiqueue.message import Batch, Counts, Durability, PeekQuery, Receipt, Settlement, Subscription


class Consumer(Protocol):
    """One subscription: what it was given and has not settled belongs to it, until it is closed."""

    def take(self) -> Sequence[Leased] | None:
        """Return the next messages, already leased to this consumer in the same step; never blocks.

        Returns an empty sequence when there is nothing now: `wake` (see `Engine.subscribe`) is called when calling
        again is worth while. Returns None when the subscription has ended: all of `max_messages` settled, idle for
        `wait`, or finished and holding nothing; the consumer is closed then.
        """
        ...

    def patience(self) -> float | None:
        """Return in how many seconds `take` is to be called again although nobody calls `wake`; None: never."""
        ...

    def finish(self) -> None:
        """Be given nothing more, and end as soon as everything held is settled."""
        ...

    def close(self) -> None:
        """End at once: what is held goes back to its old place. Only marks and wakes; safe to call twice."""
        ...


class Engine(Protocol):
    """A place where messages live."""

    @property
    def durability(self) -> Durability:
        """How safe a confirmed message is."""
        ...

    @property
    def description(self) -> str:
        """Where messages live, for people."""
        ...

    async def start(self) -> None:
        """Get ready; may take long. Nothing else is called before.

        Raises:
            StoreError: the place where messages live cannot be used.
        """
        ...

    async def enq(self, batch: Batch) -> Receipt:
        """Enqueue all of the batch or nothing; return once it is as safe as `durability` says.

        A batch whose `request_id` was seen on this queue in the last minutes enqueues nothing and returns the first
        receipt. The leases in `ack_lease_ids` are acknowledged in the same step.

        Raises:
            QueueFull: a bound is reached.
            LimitReached: there are too many queues.
            LeaseStale: one of `ack_lease_ids` is not held any more.
        """
        ...

    def subscribe(self, subscription: Subscription, wake: Callable[[], None]) -> Consumer:
        """Open a consumer. `wake` may be called from any thread, must not block and must not call the engine.

        Raises:
            LimitReached: there are too many queues.
        """
        ...

    async def settle(self, settlement: Settlement) -> list[str]:
        """Settle leases; return those that were not held any more."""
        ...

    async def exchange(self, lease_id: str) -> Sequence[Leased] | None:
        """Acknowledge a lease and return what its consumer is given next, as `Consumer.take` would.

        Need not wait until the acknowledgement is safe, and never waits for messages: returns an empty sequence when
        there is nothing now, or when it comes by `take`; None when the lease was not held any more.
        """
        ...

    def queue_of(self, lease_id: str) -> str | None:
        """Return the queue whose messages `exchange` of a lease may return; None when it returns none."""
        ...

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        """Return the counts of the named queues, zeros for unknown ones; of all queues in use when none is named."""
        ...

    def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        """Iterate over chunks of messages without taking them: leased, ready in order of delivery, delayed."""
        ...

    async def close(self) -> None:
        """Make everything confirmed safe and stop; consumers still open are closed."""
        ...
