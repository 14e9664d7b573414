"""`JetStreamEngine`: joins the parts and runs the periodic work."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import asdict
from typing import Any

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.clock import Clock, SystemClock
from stiqueue.engines.jetstream.checks import is_safe, read_address
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.consumer import JetStreamConsumer
from stiqueue.engines.jetstream.gateways import Gateways, Held, Holding
from stiqueue.engines.jetstream.lease import Holder, Lease
from stiqueue.engines.jetstream.leases import Leases
from stiqueue.engines.jetstream.looking import Looking
from stiqueue.engines.jetstream.names import DEFAULT_PREFIX, Names
from stiqueue.engines.jetstream.publishing import Publisher, durability
from stiqueue.engines.jetstream.removals import Removals
from stiqueue.engines.jetstream.shared_settings import SharedSettings, concerns_consumers
from stiqueue.engines.jetstream.stream_consumers import StreamConsumers
from stiqueue.engines.jetstream.streams import Streams
from stiqueue.engines.jetstream.sweeper import SWEEP_SECONDS, Sweeper
from stiqueue.engines.jetstream.timeouts import Timeouts
from stiqueue.errors import NotSupported, Unavailable
from stiqueue.message import Batch, Counts, Durability, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.entry import Leased, Peeked

ACK_WAIT_SECONDS = 30.0
"""The time after which the cluster gives back the messages of a dead gateway."""
TICK_SECONDS = 0.5
CLOSE_SECONDS = 5.0
"""Timeout for giving messages back when the engine closes."""


class JetStreamEngine:
    """A gateway to a NATS JetStream cluster, on the server's event loop; see `stiqueue.rules.engine.Engine`."""

    cluster: Cluster
    streams: Streams
    leases: Leases
    shared: SharedSettings

    def __init__(
        self,
        address: str,
        replicas: int = 3,
        unsafe: bool = False,
        bounds: Bounds | None = None,
        max_attempts: int = 0,
        ack_timeout: float | None = None,
        *,
        prefix: str = DEFAULT_PREFIX,
        ack_wait: float = ACK_WAIT_SECONDS,
        clock: Clock | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        """Configure the gateway; `start` connects it.

        Args:
            address: ``nats://host[:port],...[?monitor=port[,port...]]``, see `checks.read_address`.
            replicas: how many servers of the cluster keep each message.
            unsafe: use the cluster even if it can lose confirmed messages.
            bounds: limits on the size of a queue.
            max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
            ack_timeout: seconds until an unsettled message is given back, for consumers that do not say themselves.
            prefix: the prefix of stream names; installations that share a cluster need different ones.
            ack_wait: seconds after which the cluster gives back the messages of a dead gateway.
            clock: the clock for waits and lease timeouts.
            logger: the logger.

        Raises:
            InvalidRequest: the address is invalid.
            NotSupported: a cluster does not support one of the bounds.
        """
        self._bounds = bounds or Bounds()
        if self._bounds.max_bytes:
            raise NotSupported("max_bytes: a cluster has no bound on all queues together; limit the account in NATS")
        self._address = read_address(address)
        self._replicas = replicas
        self._unsafe = unsafe
        self._trusted = True
        self._defaults = QueueSettings(
            max_attempts=max_attempts,
            max_messages=self._bounds.max_messages,
            max_bytes=self._bounds.max_queue_bytes,
            ack_timeout=ack_timeout,
        )
        self._names = Names(prefix)
        self._ack_wait = ack_wait
        self.clock = clock or SystemClock()
        self._logger = logger or logging.getLogger("stiqueue")
        self._id = secrets.token_hex(6)
        self._consumers: dict[Holder, JetStreamConsumer] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._ticker: asyncio.Task[None] | None = None
        self._open = False

    @property
    def durability(self) -> Durability:
        return durability(self._replicas, self._trusted)

    @property
    def description(self) -> str:
        return f"in NATS JetStream at {self._address.shown}, {self._replicas} replicas (gateway {self._id})"

    # -- settings -----------------------------------------------------------------------------------------------------

    async def configure(self, change: QueueSettings, reset: Sequence[str]) -> QueueSettings:
        self._check_open()
        settings = await self.shared.change(change, reset)
        await self._gateways.spread_settings()
        if concerns_consumers(change, reset):
            await self.streams.apply_settings(change.queue)
        return settings

    def settings(self, queue: str) -> SettingsReport:
        return self.shared.report(queue)

    def fix(self, settings: Sequence[QueueSettings]) -> None:
        if settings:
            raise NotSupported("queues: a cluster keeps the settings of queues itself: use `stiqueue settings`")

    # -- life ---------------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self.cluster = Cluster(self._address.servers, f"stiqueue gateway {self._id}", self._logger)
        try:
            await self.cluster.connect()
            self._trusted = await is_safe(self.cluster.version, self._address.monitors, self._unsafe, self._logger)
            self.shared = SharedSettings(self.cluster, self._names, self._replicas, self._defaults, self._logger)
            consumers = StreamConsumers(self.cluster, self._names, self.shared, self._ack_wait)
            self.streams = Streams(self.cluster, self._names, consumers, self._replicas, self._bounds, self._logger)
            self.sweeper = Sweeper(self.cluster, self._names, self.streams)
            await self.streams.rehearse(self._id)
            await self.shared.load_patiently()
            publisher = self._publisher = Publisher(
                self.cluster, self._names, self.streams, self.shared, self._id, self._trusted
            )
            self.leases = Leases(self.cluster, publisher, self.shared, self._id, self._ack_wait, self.clock)
            self._removals = Removals(self.cluster, self._names, self.streams, self.leases)
            self._timeouts = Timeouts(self.leases, self.clock, self.spawn)
            self._gateways = Gateways(self.cluster, self._names, self._id, self, self.spawn)
            self._looking = Looking(self.cluster, self._names, self.streams, self.shared, self._gateways)
            await self._removals.start()
            await self._gateways.start()
        except BaseException:
            await self.cluster.close()
            raise
        self.cluster.on_reconnect = self._renew_all
        self._open = True
        self._ticker = asyncio.create_task(self._tick_for_ever())

    async def close(self) -> None:
        if self._ticker is None:
            return
        was_open, self._open = self._open, False
        for consumer in list(self._consumers.values()):
            consumer.close()
        if was_open:
            self._timeouts.close()
            if self._work:
                await asyncio.wait(self._work, timeout=CLOSE_SECONDS)
            await self._gateways.say("bye")
            for task in [*self._work, self._ticker]:
                task.cancel()
            await asyncio.gather(*self._work, self._ticker, return_exceptions=True)
            await self.cluster.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` in the background; `close` waits for it."""
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
        if batch.ttl is None and (ttl := self.shared.of(batch.queue).ttl):
            batch = batch._replace(ttl=ttl)
        receipt = await self._publisher.enq(batch)
        if not receipt.duplicate:
            self.leases.totals[batch.queue].enqueued += receipt.count
        return receipt

    def subscribe(self, subscription: Subscription, wake: Callable[[], None]) -> JetStreamConsumer:
        self._check_open()
        if subscription.ids:
            raise NotSupported("ids: a JetStream consumer cannot be asked for single messages")
        consumer = JetStreamConsumer(self, subscription, wake)
        self._consumers[consumer] = consumer
        return consumer

    def leave(self, consumer: Holder) -> None:
        """Forget a consumer."""
        self._consumers.pop(consumer, None)

    async def settle(self, settlement: Settlement) -> list[str]:
        self._check_open()
        return await self._gateways.settle(settlement)

    async def exchange(self, lease_id: str) -> Sequence[Leased] | None:
        """Acknowledge; the next messages come by `take`."""
        return None if await self.settle(Settlement([lease_id])) else []

    def queue_of(self, lease_id: str) -> None:
        """Return None, because `exchange` returns no messages here."""

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
        return sorted({consumer.asked.queue for consumer in self._consumers.values()})

    def held_of(self, queue: str) -> Held:
        """Return what this gateway holds of a queue."""
        now = self.clock.monotonic()
        delayed = self.leases.delayed[queue]
        for each in [each for each, due in delayed.items() if due <= now]:
            del delayed[each]
        return Held(
            [self._holding(lease, now) for lease in self.leases.of_queue(queue)],
            {each: int((due - now) * 1000) for each, due in delayed.items()},
            sum(consumer.asked.queue == queue for consumer in self._consumers.values()),
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
        """Give back the expired leases. Runs by itself; a test with a fake clock calls it by hand."""
        self._timeouts.give_back_due()

    async def learn_settings(self) -> None:
        """Read the settings of queues again."""
        await self.shared.load()

    @property
    def settings_version(self) -> str:
        """The version of the settings that this gateway knows."""
        return self.shared.version

    def _renew_all(self) -> None:
        self.spawn(self._gateways.learn_settings())
        self.spawn(self._removals.look())
        for consumer in list(self._consumers.values()):
            consumer.renew()

    async def _tick_for_ever(self) -> None:
        loop, beat_at = asyncio.get_running_loop(), 0.0
        sweep_at = loop.time() + SWEEP_SECONDS
        while True:
            await asyncio.sleep(TICK_SECONDS)
            try:
                self._timeouts.watch()
                for consumer in list(self._consumers.values()):
                    consumer.check_silence()
                await self._gateways.keep_saying_hello()
                if loop.time() >= beat_at:
                    beat_at = loop.time() + self._ack_wait / 3
                    self.spawn(self.leases.keep_alive())
                if loop.time() >= sweep_at:
                    sweep_at = loop.time() + SWEEP_SECONDS
                    self.spawn(self.sweeper.sweep())
            except Exception:  # the next tick may succeed
                self._logger.exception("a defect in the gateway")
