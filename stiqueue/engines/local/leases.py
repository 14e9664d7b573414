"""The index of leases. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat
from operator import itemgetter

from stiqueue.engines.local.consumer import LocalConsumer
from stiqueue.errors import LeaseStale
from stiqueue.rules.lease import Lease

Owned = dict[LocalConsumer, list[Lease]]
"""Leases by consumer."""

_LEASE_ID = itemgetter(0)


class Leases:
    """The consumers of all leases that are held, and of a few that have ended."""

    def __init__(self) -> None:
        """Start with none."""
        self._holders: dict[str, LocalConsumer] = {}
        """Consumers by the leases that they hold."""
        self._ended: dict[str, LocalConsumer] = {}
        """Consumers by leases that ran out, and by the lease that each of them settled last, if it asks for that.

        A late settlement of the former shows that the client is alive; the latter names the stream of a client that
        leaves.
        """

    def holder(self, lease_id: str) -> LocalConsumer | None:
        """Return the consumer that holds a lease."""
        return self._holders.get(lease_id)

    def pop(self, lease_id: str) -> LocalConsumer | None:
        """Remove a lease; return its consumer, which still has to let it go, or None if it was not held."""
        return self._holders.pop(lease_id, None)

    def add(self, consumer: LocalConsumer, leases: Sequence[Lease]) -> None:
        """Note that `consumer` holds `leases`."""
        self._holders.update(zip(map(_LEASE_ID, leases), repeat(consumer), strict=False))

    def remove(self, lease_ids: Iterable[str]) -> None:
        """Remove leases."""
        for lease_id in lease_ids:
            self._holders.pop(lease_id, None)

    def find(self, lease_ids: Sequence[str], remove: bool) -> tuple[Owned, list[str]]:
        """Return the held leases of `lease_ids` by consumer, and the ids that are not held, each once.

        With `remove`, remove the former; their consumers still have to let them go.
        """
        holders = list(map(self._holders.pop, lease_ids, repeat(None)) if remove else map(self._holders.get, lease_ids))
        consumers = dict.fromkeys(holders)
        if len(consumers) == 1:  # the usual case, without a loop over a thousand leases
            (consumer,) = consumers
            if consumer is not None:
                return {consumer: list(map(consumer.held.__getitem__, lease_ids))}, []
        owned: Owned = {}
        found: set[str] = set()
        for lease_id, consumer in zip(lease_ids, holders, strict=True):
            if consumer is not None:
                found.add(lease_id)
                owned.setdefault(consumer, []).append(consumer.held[lease_id])
        return owned, [lease_id for lease_id in dict.fromkeys(lease_ids) if lease_id not in found]

    def held(self, lease_ids: Iterable[str]) -> Owned:
        """Return the leases of `lease_ids`, by consumer.

        Raises:
            LeaseStale: one of them is not held.
        """
        asked = list(dict.fromkeys(lease_ids))
        owned, stale = self.find(asked, remove=False)
        if stale:
            raise LeaseStale(f"ack_lease_ids: {len(stale)} of {len(asked)} leases are no longer held")
        return owned

    # -- leases that have ended ---------------------------------------------------------------------------------------

    def ran_out(self, leases: Iterable[Lease]) -> dict[LocalConsumer, None]:
        """Remove leases that ran out; return their consumers, and remember those against which they count."""
        consumers: dict[LocalConsumer, None] = {}
        for lease in leases:
            consumer = self._holders.pop(lease.lease_id)
            consumers[consumer] = None
            if lease.lease_id in consumer.arrears:
                self._ended[lease.lease_id] = consumer
        return consumers

    def settled(self, consumer: LocalConsumer, last: Lease) -> None:
        """Remember the last lease that `consumer` settled, if its client states how many messages it works on."""
        if consumer.last_settled is not None and last.lease_id not in consumer.held:
            self._ended.pop(consumer.last_settled, None)
            consumer.last_settled = last.lease_id
            self._ended[last.lease_id] = consumer

    def late(self, lease_ids: Iterable[str], settles: bool) -> dict[LocalConsumer, None]:
        """Return the known consumers of ended leases; with `settles`, note that these settled them late."""
        found: dict[LocalConsumer, None] = {}
        for lease_id in lease_ids:
            consumer = self._ended.get(lease_id)
            if consumer is not None:
                found[consumer] = None
                if settles and lease_id in consumer.arrears:
                    consumer.arrears.settle(lease_id)
        return found

    def forget(self, lease_ids: Iterable[str]) -> None:
        """Forget ended leases."""
        for lease_id in lease_ids:
            self._ended.pop(lease_id, None)

    def forget_consumer(self, consumer: LocalConsumer) -> None:
        """Forget all leases of a consumer that has ended."""
        self.remove(consumer.held)
        self.forget(consumer.arrears)
        if consumer.last_settled:
            self._ended.pop(consumer.last_settled, None)
