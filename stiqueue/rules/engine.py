"""The interface of an engine: the seam between the RPCs and the place where messages live.

An engine decides order, leases, redelivery and durability; it knows nothing of gRPC. Its arguments were checked by
`stiqueue.limits`. The server calls all methods on its event loop, which they must not block.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeAlias, TypeVar

from stiqueue.message import Batch, Counts, Durability, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.entry import Leased, Peeked

T = TypeVar("T")

Soon: TypeAlias = T | Awaitable[T]
"""An answer, or an awaitable of one that takes time. Cancelling the `await` does not cancel the work."""


async def ready(answer: Soon[T]) -> T:
    """Return an answer, awaiting it if it takes time."""
    return await answer if isinstance(answer, Awaitable) else answer


class Consumer(Protocol):
    """One subscription. Until it is closed, it owns the messages that it was given and has not settled."""

    @property
    def ack_timeout(self) -> float | None:
        """How many seconds the leases last that `take` gives next; None or 0: as long as the consumer."""
        ...

    @property
    def leased_ids(self) -> Sequence[int]:
        """After `take`: those of `Subscription.ids` that others hold."""
        ...

    def take(self) -> Sequence[Leased] | None:
        """Lease the next messages to this consumer and return them; never blocks.

        Returns an empty sequence when no message is ready: the engine calls `wake` (see `Engine.subscribe`) when it is
        time to call again. Returns None when the subscription has ended: all of `max_messages` are settled, it was idle
        for `wait`, or it is finished and holds nothing. The consumer is then closed.
        """
        ...

    def patience(self) -> float | None:
        """Return after how many seconds to call `take` again even if `wake` is not called; None: never."""
        ...

    def finish(self) -> None:
        """Stop receiving messages, and end once everything held is settled."""
        ...

    def close(self) -> None:
        """End at once and give back the held messages. Only marks and wakes; safe to call twice."""
        ...


class Engine(Protocol):
    """A place where messages live."""

    @property
    def durability(self) -> Durability:
        """The durability of a confirmed message."""
        ...

    @property
    def description(self) -> str:
        """Where messages live, in words."""
        ...

    async def start(self) -> None:
        """Get ready, which may take long. Call it before all other methods.

        Raises:
            StoreError: the place where messages live is unusable.
        """
        ...

    def enq(self, batch: Batch) -> Soon[Receipt]:
        """Enqueue the whole batch or nothing; answer once it is as safe as `durability` says.

        If this queue has seen the `request_id` in the last minutes, enqueue nothing and return the first receipt. The
        leases in `ack_lease_ids` are acked in the same step.

        Raises:
            QueueFull: a bound is reached.
            LimitReached: there are too many queues.
            LeaseStale: one of `ack_lease_ids` is no longer held.
        """
        ...

    def subscribe(self, subscription: Subscription, wake: Callable[[], None]) -> Consumer:
        """Open a consumer. `wake` may be called from any thread, must not block and must not call the engine.

        Raises:
            LimitReached: there are too many queues.
        """
        ...

    def settle(self, settlement: Settlement) -> Soon[list[str]]:
        """Settle leases; answer with those that are no longer held."""
        ...

    def exchange(self, lease_id: str) -> Soon[Sequence[Leased] | None]:
        """Ack a lease and return its consumer's next messages, as `Consumer.take` would.

        Does not wait for messages, and may answer before the ack is safe. Returns an empty sequence when no message is
        ready, or when the next one comes by `take`; None when the lease is no longer held.
        """
        ...

    def queue_of(self, lease_id: str) -> str | None:
        """Return the queue whose messages `exchange` of a lease may return; None when it returns none."""
        ...

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        """Return the counts of the named queues, zeros for unknown ones; without names, those of all queues in use."""
        ...

    def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        """Iterate over chunks of messages without taking them: leased, ready in order of delivery, delayed."""
        ...

    def configure(self, change: QueueSettings, reset: Sequence[str]) -> Soon[QueueSettings]:
        """Change the settings of a queue or pattern, and no longer set those of `reset`; they are in force at once.

        Answers with all settings of that name or pattern, once they are as safe as `durability` says.

        Raises:
            SettingFixed: the settings given to `fix` say otherwise.
            LimitReached: there are too many names and patterns.
            NotSupported: this engine has no such setting.
        """
        ...

    def settings(self, queue: str) -> SettingsReport:
        """Return all settings, or with `queue` those that match it and those that apply to it."""
        ...

    def fix(self, settings: Sequence[QueueSettings]) -> None:
        """Have these settings, which `configure` cannot change, instead of those given before; before `start` as well.

        Raises:
            NotSupported: this engine has no such setting.
        """
        ...

    async def close(self) -> None:
        """Make everything confirmed safe, close the open consumers, and stop."""
        ...
