"""`JetStreamEngine`: joins the parts, and does what is due from time to time."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import Any

from stiqueue.clock import Clock, SystemClock
from stiqueue.engines.bounds import Bounds
from stiqueue.engines.jetstream.checks import find_problems, read_address, version_problem
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.consumer import JetStreamConsumer
from stiqueue.engines.jetstream.gateways import Gateways, Held, Holding
from stiqueue.engines.jetstream.leases import Lease, Leases
from stiqueue.engines.jetstream.looking import Looking
from stiqueue.engines.jetstream.names import DEFAULT_PREFIX, Names
from stiqueue.engines.jetstream.publishing import Publisher, durability
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.entry import Leased, Peeked
from stiqueue.errors import NotSupported, StiQueueError, StoreError, Unavailable
from stiqueue.message import Batch, Counts, Durability, Outcome, PeekQuery, Receipt, Settlement, Subscription

ACK_WAIT_SECONDS = 30.0
"""After how long the cluster gives back what a gateway held that died without a word."""
TICK_SECONDS = 0.5
CLOSE_SECONDS = 5.0
"""How long giving back may take when the engine closes."""


class JetStreamEngine:
    """A gateway to a NATS JetStream cluster, on the server's event loop; see `stiqueue.engine.Engine`."""

    cluster: Cluster
    streams: Streams
    leases: Leases

    def __init__(
        self,
        address: str,
        replicas: int = 3,
        unsafe: bool = False,
        bounds: Bounds | None = None,
        max_attempts: int = 0,
        *,
        prefix: str = DEFAULT_PREFIX,
        ack_wait: float = ACK_WAIT_SECONDS,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Describe the gateway; nothing is opened before `start`.

        Args:
            address: ``nats://host[:port],...[?monitor=port[,port...]]``, see `checks.read_address`.
            replicas: on how many servers of the cluster each message is.
            unsafe: use the cluster whatever it promises.
            bounds: how much a queue takes in.
            max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
            prefix: what the names of streams begin with; installations that share a cluster have different ones.
            ack_wait: after how many seconds the cluster gives back what a gateway held that died without a word.
            clock: where the time of waits and time limits comes from.
            logger: where it logs.

        Raises:
            InvalidRequest: the address is none.
            NotSupported: a bound is asked for that a cluster does not have.
        """
        self._bounds = bounds or Bounds()
        if self._bounds.max_bytes:
            raise NotSupported("max_bytes: a cluster has no bound on all queues together; limit the account in NATS")
        self._address = read_address(address)
        self._replicas = replicas
        self._unsafe = unsafe
        self._trusted = True
        self._max_attempts = max_attempts
        self._names = Names(prefix)
        self._ack_wait = ack_wait
        self.clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("stiqueue")
        self._id = secrets.token_hex(6)
        self._consumers: dict[JetStreamConsumer, None] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._limits_due: asyncio.TimerHandle | None = None
        self._open = False

    @property
    def durability(self) -> Durability:
        return durability(self._replicas, self._trusted)

    @property
    def description(self) -> str:
        return f"in NATS JetStream at {self._address.shown}, {self._replicas} replicas (gateway {self._id})"

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.cluster = Cluster(self._address.servers, f"stiqueue gateway {self._id}", self._logger)
        try:
            await self.cluster.connect()
            await self._check()
            self.streams = Streams(
                self.cluster, self._names, self._replicas, self._bounds, self._ack_wait, self._logger
            )
            await self.streams.rehearse(self._id)
            publisher = self._publisher = Publisher(self.cluster, self._names, self.streams, self._id, self._trusted)
            self.leases = Leases(self.cluster, publisher, self._id, self._max_attempts, self._ack_wait, self.clock)
            self.leases.on_limit = self._watch_limits
            self._gateways = Gateways(self.cluster, self._names, self._id, self, self.spawn)
            self._looking = Looking(self.cluster, self._names, self.streams, self._gateways)
            await self._gateways.start()
        except BaseException:
            await self.cluster.close()
            raise
        self.cluster.on_reconnect = self._renew_all
        self._open = True
        self._ticker = asyncio.create_task(self._tick_for_ever())

    async def _check(self) -> None:
        """Refuse a cluster that loses messages, unless that is accepted."""
        problem = version_problem(self.cluster.version)
        if problem:  # without what is missing there nothing works, so this is not to be overridden
            raise StoreError(f"the NATS server cannot be used: {problem}")
        problems = await find_problems(self._address.monitors)
        if not problems:
            return
        text = "; ".join(problems)
        if not self._unsafe:
            raise StoreError(f"the NATS cluster is not to be trusted with messages ({text}); --unsafe uses it anyway")
        self._trusted = False
        self._logger.warning("unsafe: confirmed messages can be lost (%s)", text)

    async def close(self) -> None:
        if self._ticker is None:
            return
        was_open, self._open = self._open, False
        for consumer in list(self._consumers):
            consumer.close()
        if was_open:
            if self._limits_due is not None:
                self._limits_due.cancel()
            if self._work:
                await asyncio.wait(self._work, timeout=CLOSE_SECONDS)
            await self._gateways.say("bye")
            for task in [*self._work, self._ticker]:
                task.cancel()
            await asyncio.gather(*self._work, self._ticker, return_exceptions=True)
            await self.cluster.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let `work` go on beside; the engine waits for it when it closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._logger.error("a defect in the gateway", exc_info=error)

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("the queue is closed", "SHUTTING_DOWN")

    # -- the protocol -------------------------------------------------------------------------------------------------

    async def enq(self, batch: Batch) -> Receipt:
        self._check_open()
        receipt = await self._publisher.enq(batch)
        if not receipt.duplicate:
            self.leases.totals[batch.queue].enqueued += receipt.count
        return receipt

    def subscribe(self, subscription: Subscription, wake: Callable[[], None]) -> JetStreamConsumer:
        self._check_open()
        consumer = JetStreamConsumer(self, subscription, wake)
        self._consumers[consumer] = None
        return consumer

    def leave(self, consumer: JetStreamConsumer) -> None:
        """Forget a consumer."""
        self._consumers.pop(consumer, None)

    async def settle(self, settlement: Settlement) -> list[str]:
        self._check_open()
        return await self._gateways.settle(settlement)

    async def exchange(self, lease_id: str) -> Sequence[Leased] | None:
        """Acknowledge; the next messages are on their way, and come by `take`."""
        return None if await self.settle(Settlement([lease_id])) else []

    def queue_of(self, lease_id: str) -> None:
        """None of a lease's queue comes with an exchange."""

    async def settle_own(self, settlement: Settlement) -> list[str]:
        """Settle leases of this gateway."""
        return await self.leases.settle(settlement)

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        self._check_open()
        return await self._looking.counts(queues)

    def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        self._check_open()
        return self._looking.peek(query)

    # -- what others ask ----------------------------------------------------------------------------------------------

    def queues_in_use(self) -> list[str]:
        """Return the queues that this gateway has consumers of."""
        return sorted({consumer.asked.queue for consumer in self._consumers})

    def held_of(self, queue: str) -> Held:
        """Return what this gateway holds of a queue."""
        now = self.clock.monotonic()
        delayed = self.leases.delayed[queue]
        for each in [each for each, due in delayed.items() if due <= now]:
            del delayed[each]
        return Held(
            [self._holding(lease, now) for lease in self.leases.of_queue(queue)],
            {each: int((due - now) * 1000) for each, due in delayed.items()},
            sum(consumer.asked.queue == queue for consumer in self._consumers),
            asdict(self.leases.totals[queue]),
        )

    def _holding(self, lease: Lease, now: float) -> Holding:
        limit = self.leases.limit_of(lease)
        left = None if limit is None else max(0, int((limit - now) * 1000))
        return Holding(
            lease.id, lease.consumer.asked.consumer, max(0, int((now - lease.since) * 1000)), left, lease.attempt
        )

    # -- time passing -------------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Give back the leases whose time is over. Runs by itself; a test with a clock of its own calls it by hand."""
        for lease in self.leases.due():
            self.spawn(self._time_out(lease))

    async def _time_out(self, lease: Lease) -> None:
        with contextlib.suppress(StiQueueError):  # else the cluster gives it back
            await self.leases.settle(Settlement([lease.lease_id], Outcome.REQUEUE))

    def _watch_limits(self) -> None:
        """Be called when the earliest time limit is over."""
        if self._limits_due is not None:
            self._limits_due.cancel()
            self._limits_due = None
        due = self.leases.next_limit()
        if due is not None and self._open:
            delay = max(0.0, due - self.clock.monotonic())
            self._limits_due = self._loop.call_later(delay, self._limits_over)

    def _limits_over(self) -> None:
        self.tick()
        self._watch_limits()

    def _renew_all(self) -> None:
        for consumer in list(self._consumers):
            consumer.renew()

    async def _tick_for_ever(self) -> None:
        beat_at = 0.0
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._watch_limits()
                for consumer in list(self._consumers):
                    consumer.check_silence()
                await self._gateways.keep_saying_hello()
                if self._loop.time() >= beat_at:
                    beat_at = self._loop.time() + self._ack_wait / 3
                    self.spawn(self.leases.keep_alive())
            except Exception:  # whatever it was, the next time may do better
                self._logger.exception("a defect in the gateway")
