"""The leases of one gateway: what its consumers hold, kept alive in the cluster and settled there.

JetStream takes an acknowledgement of any delivery of a message for that of its latest one. So the gateway that
delivered it judges every settlement, by this table; others pass it on. And so a message is given back once at the most:
a second time would take it from whoever has got it meanwhile. A lease is good for as long as the cluster surely does
not give the message to somebody else: `ACK_WAIT` from when the last heartbeat that it confirmed was sent.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from stiqueue.alarms import Alarms
from stiqueue.clock import Clock
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.publishing import Publisher
from stiqueue.engines.jetstream.totals import Totals
from stiqueue.entry import Entry
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.lease import new_lease_ids
from stiqueue.message import DEAD_SUFFIX, Outcome, Settlement

if TYPE_CHECKING:
    from stiqueue.engines.jetstream.consumer import JetStreamConsumer

SETTLE_SECONDS = 10.0
"""How long the cluster may take to confirm a settlement."""
FRESH_IDS = 256
"""How many ids are made at once."""
MAX_ATTEMPTS_REASON = "max-attempts"

Confirm = Callable[[Iterable[tuple[str, bytes]], float], Awaitable[list[int]]]

ACK, NAK, TERM, IN_PROGRESS = b"+ACK", b"-NAK", b"+TERM", b"+WPI"


class Lease:
    """One delivery of one message to one consumer. Has the attributes of a delivered message."""

    __slots__ = ("consumer", "entry", "good_until", "lease_id", "queue", "reply", "settling", "since")

    def __init__(
        self, lease_id: str, queue: str, entry: Entry, reply: str, consumer: JetStreamConsumer, since: float
    ) -> None:
        self.lease_id = lease_id
        self.queue = queue
        self.entry = entry
        self.reply = reply
        """Where the cluster wants to hear what becomes of it."""
        self.consumer = consumer
        self.since = since
        self.good_until = 0.0
        self.settling = False

    @property
    def id(self) -> int:
        return self.entry.id

    @property
    def body(self) -> bytes:
        return self.entry.body

    @property
    def attempt(self) -> int:
        return self.entry.attempt + 1

    @property
    def entry_after(self) -> Entry:
        """The message with this delivery counted."""
        return self.entry._replace(attempt=self.attempt)

    @property
    def priority(self) -> int:
        return 0

    @property
    def headers(self) -> Mapping[str, str]:
        return self.entry.properties.headers

    @property
    def enqueue_time_ms(self) -> int:
        return self.entry.properties.enqueue_time_ms


class Leases:
    """The table of leases."""

    def __init__(
        self, cluster: Cluster, publisher: Publisher, gateway: str, max_attempts: int, ack_wait: float, clock: Clock
    ) -> None:
        """Keep leases for `gateway`."""
        self._cluster = cluster
        self._publisher = publisher
        self._gateway = gateway
        self._max_attempts = max_attempts
        self._ack_wait = ack_wait
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._held: dict[str, Lease] = {}
        self._fresh_ids: list[str] = []
        self._limits: Alarms[str, Lease] = Alarms()
        self.on_limit: Callable[[], None] = lambda: None
        """Called when a time limit is set."""
        self.delayed: dict[str, dict[int, float]] = defaultdict(dict)
        """When messages that were requeued with a delay return, by queue and id, by the clock."""
        self.totals: dict[str, Totals] = defaultdict(Totals)

    def of_queue(self, queue: str) -> list[Lease]:
        """Return the leases of one queue."""
        return [lease for lease in self._held.values() if lease.queue == queue]

    def grant(self, queue: str, entry: Entry, reply: str, consumer: JetStreamConsumer) -> Lease:
        """Lease a message that has just come to `consumer`."""
        if not self._fresh_ids:
            self._fresh_ids = new_lease_ids(FRESH_IDS)
        lease_id = f"{self._gateway}-{self._fresh_ids.pop()}"
        now = self._clock.monotonic()
        lease = Lease(lease_id, queue, entry, reply, consumer, now)
        lease.good_until = self._loop.time() + self._ack_wait
        self._held[lease_id] = lease
        if consumer.asked.ack_timeout:
            self._limits.set(lease_id, now + consumer.asked.ack_timeout, lease)
            self.on_limit()
        self.delayed[queue].pop(entry.id, None)
        return lease

    def limit_of(self, lease: Lease) -> float | None:
        """Return when the time limit of a lease is over, by the clock; None: it has none."""
        return self._limits.when(lease.lease_id)

    def next_limit(self) -> float | None:
        """Return when the earliest time limit is over, by the clock."""
        return self._limits.next_at()

    def is_last_attempt(self, queue: str, attempt: int) -> bool:
        """Whether a message that was delivered `attempt` times is not to be delivered again."""
        return bool(self._max_attempts) and attempt >= self._max_attempts and not queue.endswith(DEAD_SUFFIX)

    # -- settling -----------------------------------------------------------------------------------------------------

    async def settle(self, settlement: Settlement) -> list[str]:
        """Settle leases of this gateway; return those that are not held.

        Raises:
            Unavailable: the cluster did not confirm all of it; what it did not is still held.
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
        if settlement.close_stream:
            for consumer in {lease.consumer for lease in leases}:
                consumer.finish()
        if settlement.outcome is Outcome.EXTEND:
            for lease in leases:
                self._limits.set(lease.lease_id, self._clock.monotonic() + settlement.delay, lease)
            self.on_limit()
        elif settlement.outcome is Outcome.ACK:
            await self._acknowledge(leases)
        elif settlement.outcome is Outcome.DEAD_LETTER:
            await self._bury(leases, settlement.reason or "rejected")
        else:
            last = [lease for lease in leases if self.is_last_attempt(lease.queue, lease.attempt)]
            await self._bury(last, MAX_ATTEMPTS_REASON, given_back=True)
            await self.give_back([lease for lease in leases if lease not in last], settlement.delay)
        return stale

    async def give_back(self, leases: Sequence[Lease], delay: float = 0.0) -> None:
        """Let messages be delivered again, the oldest first, after `delay` seconds."""
        leases = sorted(leases, key=lambda lease: lease.id)
        answer = NAK if not delay else b'-NAK {"delay": %d}' % int(delay * 1e9)
        due = self._clock.monotonic() + delay

        def done(lease: Lease) -> None:
            self.totals[lease.queue].requeued += 1
            if delay:
                self.delayed[lease.queue][lease.id] = due

        try:
            await self._tell(leases, answer, done, self._cluster.confirm_once)
        finally:
            self._end(leases)  # what was not confirmed, somebody else may have by now

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
        """Move messages to the dead letter queue: first the copy, when it is safe the original."""
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
        """Move a message that has come once too often to the dead letter queue."""
        await self._publisher.bury(queue, entry, MAX_ATTEMPTS_REASON)
        await self._cluster.confirm([(reply, TERM)], SETTLE_SECONDS)
        self.totals[queue].dead_lettered += 1

    async def _tell(
        self, leases: Sequence[Lease], answer: bytes, done: Callable[[Lease], None], confirm: Confirm | None = None
    ) -> None:
        """Tell the cluster what becomes of messages, and end the leases of which it has confirmed it."""
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
        """Forget leases; their consumers have room again."""
        owners: dict[JetStreamConsumer, None] = {}
        for lease in leases:
            if self._held.pop(lease.lease_id, None) is not None:
                self._limits.cancel(lease.lease_id)
                lease.consumer.drop(lease)
                owners[lease.consumer] = None
        for consumer in owners:
            consumer.freed()

    async def release(self, leases: Sequence[Lease], late: Sequence[tuple[int, str]]) -> None:
        """Give back what a closed consumer held, and messages (id, reply) that came to it too late.

        What is being settled at this moment is left to that; if it fails, the cluster gives back after `ack_wait`.
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
            pass  # what the cluster was not told it gives back by itself after ACK_WAIT
        for lease in leases:
            self.totals[lease.queue].requeued += 1
        self._end(leases)

    # -- time passing -------------------------------------------------------------------------------------------------

    def due(self) -> list[Lease]:
        """Return the leases whose time limit is over; they are to be given back."""
        return [lease for lease in self._limits.pop_due(self._clock.monotonic()) if not lease.settling]

    async def keep_alive(self) -> None:
        """Tell the cluster that all leases are at work, and end those that it may have given to somebody else."""
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
