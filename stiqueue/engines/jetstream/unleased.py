"""Messages that are settled as they arrive, without a lease: expired, tried too often, or delivered at most once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.leases import ACK, SETTLE_SECONDS, TERM, Leases
from stiqueue.errors import StiQueueError
from stiqueue.rules.entry import Entry

Spawn = Callable[[Coroutine[Any, Any, None]], None]


class Owner(Protocol):
    """The consumer that the messages came to."""

    def deliver_unleased(self, entry: Entry) -> None:
        """Deliver a message that is acknowledged already."""
        ...

    def not_acknowledged(self) -> None:
        """Count a message that is not delivered, because its acknowledgement was not confirmed."""
        ...

    def came_to_nothing(self) -> None:
        """Note that a message was settled and not delivered."""
        ...


class Unleased:
    """The messages of one consumer that get no lease."""

    def __init__(self, cluster: Cluster, leases: Leases, spawn: Spawn, queue: str, owner: Owner) -> None:
        """Settle messages of `queue` that came to `owner`."""
        self._cluster = cluster
        self._leases = leases
        self._spawn = spawn
        self._queue = queue
        self._owner = owner
        self._final: list[tuple[Entry, str]] = []
        """Messages to deliver at most once, and their reply subjects; not being acknowledged yet."""
        self.settling = 0
        """The number of messages that are being settled."""

    def __bool__(self) -> bool:
        """Whether a message is still to be settled."""
        return bool(self.settling or self._final)

    def deliver_once(self, entry: Entry, reply: str) -> None:
        """Acknowledge a message together with those that arrived with it, then deliver it."""
        if not self._final:
            self._spawn(self._acknowledge())
        self._final.append((entry, reply))

    def drop(self, reply: str) -> None:
        """Drop a message whose ttl ended before the cluster noticed."""
        self._spawn(self._drop(reply))

    def bury(self, entry: Entry, reply: str) -> None:
        """Move a message that was delivered too often to the dead letter queue."""
        self._spawn(self._bury(entry, reply))

    def abandon(self) -> list[tuple[int, str]]:
        """Return the ids and reply subjects of the messages that nobody settles yet: the caller gives them back."""
        final, self._final = self._final, []
        return [(entry.id, reply) for entry, reply in final]

    async def _drop(self, reply: str) -> None:
        self.settling += 1
        unconfirmed = await self._cluster.confirm([(reply, TERM)], SETTLE_SECONDS)
        self.settling -= 1
        self._leases.totals[self._queue].expired += not unconfirmed
        self._owner.came_to_nothing()

    async def _acknowledge(self) -> None:
        final, self._final = self._final, []
        self.settling += len(final)
        unconfirmed = await self._cluster.confirm([(reply, ACK) for _, reply in final], SETTLE_SECONDS)
        self.settling -= len(final)
        for index, (entry, _) in enumerate(final):
            if index in unconfirmed:
                self._owner.not_acknowledged()
            else:
                self._leases.totals[self._queue].acked += 1
                self._owner.deliver_unleased(entry)

    async def _bury(self, entry: Entry, reply: str) -> None:
        self.settling += 1
        try:
            await self._leases.bury_unleased(self._queue, entry, reply)
        except StiQueueError:
            pass  # it comes again, and is then buried
        finally:
            self.settling -= 1
            self._owner.came_to_nothing()
