"""The leases of one gateway, kept alive in the cluster and settled there.

JetStream applies an acknowledgement of any delivery of a message to the latest delivery. So the gateway that delivered
a message decides on every settlement, by this table; other gateways forward theirs to it. For the same reason a message
is given back at most once: a second time would take it from its next consumer. A lease is valid while the cluster
certainly does not redeliver the message: for `ACK_WAIT` from the sending of the last confirmed heartbeat.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence

from stiqueue.engines.clock import Clock
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.lease import Holder, Lease
from stiqueue.engines.jetstream.publishing import Publisher
from stiqueue.engines.jetstream.shared_settings import SharedSettings
from stiqueue.engines.jetstream.totals import Totals
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.message import Outcome, Settlement
from stiqueue.rules.alarms import Alarms
from stiqueue.rules.entry import Entry
from stiqueue.rules.lease import new_lease_ids

SETTLE_SECONDS = 10.0
"""Timeout for the cluster's confirmation of a settlement."""
FRESH_IDS = 256
"""Lease ids made at a time."""
MAX_ATTEMPTS_REASON = "max-attempts"

Confirm = Callable[[Iterable[tuple[str, bytes]], float], Awaitable[list[int]]]

ACK, NAK, TERM, IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"


class Leases:
    """The table of leases."""

    def __init__(
        self,
        cluster: Cluster,
        publisher: Publisher,
        settings: SharedSettings,
        gateway: str,
        ack_wait: float,
        clock: Clock,
    ) -> None:
        """Keep leases for `gateway`."""
        self._cluster = cluster
        self._publisher = publisher
        self._gateway = gateway
        self._settings = settings
        self._ack_wait = ack_wait
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, Lease] = {}
        self._fresh_ids: list[str] = []
        self._limits: Alarms[str, Lease] = Alarms()
        self.on_limit: Callable[[], None] = lambda: None
        """Called when a lease timeout is set."""
        self._late: dict[str, Holder] = {}
        """Expired leases that still count against their consumer's credit."""
        self.delayed: dict[str, dict[int, float]] = defaultdict(dict)
        """The due times of messages requeued with a delay, by queue and id, by the clock."""
        self.totals: dict[str, Totals] = defaultdict(Totals)

    def queues(self) -> set[str]:
        """Return the queues with leases."""
        return {lease.queue for lease in self._held.values()}

    def of_queue(self, queue: str) -> list[Lease]:
        """Return the leases of one queue."""
        return [lease for lease in self._held.values() if lease.queue == queue]

    def grant(self, queue: str, entry: Entry, reply: str, consumer: Holder) -> Lease:
        """Lease a message that has just come to `consumer`."""
        if not self._fresh_ids:
            self._fresh_ids = new_lease_ids(FRESH_IDS)
        lease_id = f"{self._gateway}-{self._fresh_ids.pop()}"
        now = self._clock.monotonic()
        lease = Lease(lease_id, queue, entry, reply, consumer, now)
        lease.good_until = self._loop.time() + self._ack_wait
        self._held[lease_id] = lease
        if ack_timeout := consumer.ack_timeout:
            self._limits.set(lease_id, now + ack_timeout, lease)
            self.on_limit()
        self.delayed[queue].pop(entry.id, None)
        return lease

    def limit_of(self, lease: Lease) -> float | None:
        """Return the end of a lease by its timeout, by the clock; None: it has no timeout."""
        return self._limits.when(lease.lease_id)

    def next_limit(self) -> float | None:
        """Return the earliest end of a lease by its timeout, by the clock."""
        return self._limits.next_at()

    def is_last_attempt(self, queue: str, attempt: int) -> bool:
        """Return whether a message that was delivered `attempt` times must not be delivered again."""
        most = self._settings.of(queue).max_attempts
        return bool(most) and attempt >= (most or 0)

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> list[str]:
        """Settle leases of this gateway; return those that are not held.

        Raises:
            Unavailable: the cluster did not confirm every settlement; unconfirmed leases are still held.
        """
        now = self._loop.time()
        leases: list[Lease] = []
        stale: list[str] = []
        for lease_id in dict.fromkeys(settlement.lease_ids):
            lease = self._held.get(lease_id)
            if lease is None or lease.settling or lease.good_until < now:
                stale.append(lease_id)
            else:
                leases.append(lease)
        late = {each: self._late[each] for each in stale if each in self._late}
        if settlement.close_stream:
            for consumer in {*(lease.consumer for lease in leases), *late.values()}:
                consumer.finish()
        if settlement.outcome is not Outcome.EXTEND:
            for lease_id, consumer in late.items():
                consumer.settled_late(lease_id)
            for consumer in {lease.consumer for lease in leases}:
                self.forget_late(consumer)
        if settlement.outcome is Outcome.EXTEND:
            for lease in leases:
                self._limits.set(lease.lease_id, self._clock.monotonic() + settlement.delay, lease)
            self.on_limit()
        elif settlement.outcome is Outcome.ACK:
            await self._acknowledge(leases)
        elif settlement.outcome is Outcome.DEAD_LETTER:
            await self._bury(leases, settlement.reason or "rejected")
        else:
            await self.give_back(leases, settlement.delay)
        return stale

    def forget_late(self, consumer: Holder) -> None:
        """Stop counting expired leases against a consumer: it settled a lease in time, or has ended."""
        for lease_id in consumer.settled_in_time():
            self._late.pop(lease_id, None)

    async def time_out(self, leases: Sequence[Lease]) -> None:
        """Give back the messages of expired leases, which go on counting against their consumers' credit."""
        now = self._loop.time()
        ended = [
            lease
            for lease in leases
            if self._held.get(lease.lease_id) is lease and not lease.settling and lease.good_until >= now
        ]
        for lease in ended:
            if lease.consumer.ran_out(lease):
                self._late[lease.lease_id] = lease.consumer
        await self.give_back(ended)

    async def give_back(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Requeue messages after `delay` seconds, the oldest first; bury those that had their last attempt.

        Raises:
            Unavailable: the cluster did not confirm all of it.
        """
        last = [lease for lease in leases if self.is_last_attempt(lease.queue, lease.attempt)]
        await self._bury(last, MAX_ATTEMPTS_REASON, given_back=True)
        leases = sorted((lease for lease in leases if lease not in last), key=lambda lease: lease.id)
        answer = NAK if not delay else b'-NAK {"delay": %d}' % int(delay * 1e9)
        due = self._clock.monotonic() + delay

        def done(lease: Lease) -> None:
            self.totals[lease.queue].requeued += 1
            if delay:
                self.delayed[lease.queue][lease.id] = due

        try:
            await self._tell(leases, answer, done, self._cluster.confirm_once)
        finally:
            self._end(leases)  # another consumer may already have the unconfirmed ones

    async def _acknowledge(self, leases: Sequence[Lease]) -> None:
        numbers = Counter(lease.consumer for lease in leases)
        for consumer, number in numbers.items():
            consumer.settling(number)
        try:
            await self._tell(leases, ACK, self._acked)
        finally:
            for consumer, number in numbers.items():
                consumer.settling(-number)

    def _acked(self, lease: Lease) -> None:
        self.totals[lease.queue].acked += 1

    async def _bury(self, leases: Iterable[Lease], reason: str, given_back: bool = False) -> None:
        """Move messages to the dead letter queue: copy first, and remove the original once the copy is confirmed."""
        for lease in leases:
            lease.settling = True
            try:
                await self._publisher.bury(lease.queue, lease.entry_after, reason)
            finally:
                lease.settling = False

            def done(lease: Lease) -> None:
                self.totals[lease.queue].dead_lettered += 1
                self.totals[lease.queue].requeued += given_back

            await self._tell([lease], TERM, done)

    async def bury_unleased(self, queue: str, entry: Entry, reply: str) -> None:
        """Move a message that came once too often to the dead letter queue, without a lease."""
        await self._publisher.bury(queue, entry, MAX_ATTEMPTS_REASON)
        await self._cluster.confirm([(reply, TERM)], SETTLE_SECONDS)
        self.totals[queue].dead_lettered += 1

    async def _tell(
        self, leases: Sequence[Lease], answer: bytes, done: Callable[[Lease], None], confirm: Confirm | None = None
    ) -> None:
        """Send the outcome of leases to the cluster, and end the confirmed ones."""
        if not leases:
            return
        for lease in leases:
            lease.settling = True
        unconfirmed: Iterable[int] = range(len(leases))
        try:
            confirm = confirm or self._cluster.confirm
            unconfirmed = await confirm([(lease.reply, answer) for lease in leases], SETTLE_SECONDS)
        finally:
            open_ones = set(unconfirmed)
            ended = [lease for index, lease in enumerate(leases) if index not in open_ones]
            for index in open_ones:
                leases[index].settling = False
            for lease in ended:
                done(lease)
            self._end(ended)
        if open_ones:
            raise Unavailable(f"the NATS cluster did not confirm {len(open_ones)} of {len(leases)} settlements")

    def _end(self, leases: Iterable[Lease]) -> None:
        """Forget leases; their consumers have credit again."""
        owners: dict[Holder, None] = {}
        for lease in leases:
            if self._held.pop(lease.lease_id, None) is not None:
                self._limits.cancel(lease.lease_id)
                lease.consumer.drop(lease)
                owners[lease.consumer] = None
        for consumer in owners:
            consumer.freed()

    def abandon(self, queue: str) -> None:
        """End the leases of a queue without settling them: its stream is gone."""
        self.delayed.pop(queue, None)
        self._end(self.of_queue(queue))

    async def release(self, leases: Sequence[Lease], late: Sequence[tuple[int, str]]) -> None:
        """Give back the messages of a closed consumer, and messages (id, reply) that reached it too late.

        Skips leases that are being settled; if that fails, the cluster gives them back after `ack_wait`.
        """
        leases = [lease for lease in leases if not lease.settling]
        last = [lease for lease in leases if self.is_last_attempt(lease.queue, lease.attempt)]
        back = sorted((lease.id, lease.reply) for lease in leases if lease not in last)
        for lease in leases:
            lease.settling = True
        try:
            await self._cluster.confirm_once([(reply, NAK) for _, reply in sorted([*back, *late])], SETTLE_SECONDS)
            for lease in last:
                await self._publisher.bury(lease.queue, lease.entry_after, MAX_ATTEMPTS_REASON)
                await self._cluster.confirm([(lease.reply, TERM)], SETTLE_SECONDS)
                self.totals[lease.queue].dead_lettered += 1
        except StiQueueError:
            pass  # the cluster gives the rest back by itself after ACK_WAIT
        for lease in leases:
            self.totals[lease.queue].requeued += 1
        self._end(leases)

    # -- time passing -------------------------------------------------------------------------------------------------

    def due(self) -> list[Lease]:
        """Return the expired leases, which the caller must give back."""
        return [lease for lease in self._limits.pop_due(self._clock.monotonic()) if not lease.settling]

    async def keep_alive(self) -> None:
        """Send the cluster a heartbeat for every lease; end leases whose messages it may have redelivered."""
        now = self._loop.time()
        lost = [lease for lease in self._held.values() if lease.good_until < now and not lease.settling]
        for lease in lost:
            self.totals[lease.queue].requeued += 1
        self._end(lost)
        leases = [lease for lease in self._held.values() if not lease.settling and not lease.consumer.closed]
        unconfirmed = set(
            await self._cluster.confirm([(lease.reply, IN_PROGRESS) for lease in leases], self._ack_wait / 6)
        )
        for index, lease in enumerate(leases):
            if index not in unconfirmed:
                lease.good_until = now + self._ack_wait
