"""NATS JetStream by nats-py, which is asyncio only: threads become tasks on its one event loop."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import nats
from nats.errors import TimeoutError as NatsTimeout
from nats.js.api import ConsumerConfig, RetentionPolicy, StorageType, StreamConfig
from nats.js.errors import APIError

from benchmark.clients.base import STAMP_BYTES, STOP, Client, Spread, body_of, timed

SUBJECT, STREAM, DURABLE = "bench", "BENCH", "workers"
T = TypeVar("T")


class MemoryClient(Client):
    """Publish with confirmation; fetch from a durable pull consumer and ack. nats-py does not wait for acks."""

    storage = StorageType.MEMORY
    replicas = 1
    retention = RetentionPolicy.LIMITS
    """By default nothing that is acknowledged is removed."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._run(self._connect(port))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _connect(self, port: int) -> None:
        self._nats = await nats.connect(f"nats://127.0.0.1:{port}")
        self._js = self._nats.jetstream()
        config = StreamConfig(
            name=STREAM,
            subjects=[SUBJECT],
            storage=self.storage,
            num_replicas=self.replicas,
            retention=self.retention,
        )
        await self._add_stream(config)
        consumer = ConsumerConfig(durable_name=DURABLE, max_ack_pending=20_000, ack_wait=300)
        await self._js.add_consumer(STREAM, consumer)
        self._pull = await self._subscribe()

    async def _add_stream(self, config: StreamConfig) -> None:
        await self._js.add_stream(config)

    async def _subscribe(self) -> Any:
        """Return a subscription; tasks that fetch at the same time each need one of their own."""
        return await self._js.pull_subscribe_bind(consumer=DURABLE, stream=STREAM)

    async def _publish(self, body: bytes) -> None:
        await self._js.publish(SUBJECT, body)

    async def _take(self, most: int = 1, pull: Any = None) -> list[Any]:
        """Wait for messages; acks them. A fetch ends without any after a while, so it is repeated."""
        while True:
            with contextlib.suppress(NatsTimeout):
                messages: list[Any] = await (pull or self._pull).fetch(most, timeout=30)
                for message in messages:
                    await message.ack()
                return messages

    def enq(self, body: bytes) -> None:
        self._run(self._publish(body))

    def enq_each(self, number: int, size: int) -> Spread:
        body = body_of(size)
        return Spread.of(self._run(timed(number, lambda: self._publish(body))))

    def deq_each(self, number: int) -> Spread:
        took = self._run(timed(number, self._take))
        self._run(self._nats.flush())
        return Spread.of(took)

    def enq_batch(self, bodies: list[bytes]) -> None:
        async def publish() -> None:
            under_way = [await self._js.publish_async(SUBJECT, body) for body in bodies]
            await asyncio.gather(*under_way)

        self._run(publish())

    def deq_batches(self, number: int, prefetch: int) -> None:
        async def take() -> None:
            left = number
            while left:
                left -= len(await self._take(min(left, prefetch)))
            await self._nats.flush()

        self._run(take())

    def enq_threads(self, number: int, size: int, threads: int) -> None:
        async def publish() -> None:
            await timed(max(1, number // threads), lambda: self._publish(body))

        body = body_of(size)
        self._run(self._at_once(threads, publish))

    def deq_threads(self, number: int, threads: int) -> None:
        async def take() -> None:
            pull = await self._subscribe()
            await timed(max(1, number // threads), lambda: self._take(1, pull))
            await pull.unsubscribe()

        self._run(self._at_once(threads, take))
        self._run(self._nats.flush())

    async def _at_once(self, tasks: int, work: Callable[[], Awaitable[object]]) -> None:
        await asyncio.gather(*(work() for _ in range(tasks)))

    def send(self, number: int, size: int, per_second: float, threads: int, stops: int) -> Spread:
        took: list[int] = []
        filler = body_of(max(0, size - STAMP_BYTES))

        async def pace() -> None:
            start = time.perf_counter()
            for index in range(max(1, number // threads)):
                await asyncio.sleep(start + index * threads / per_second - time.perf_counter())
                began = time.monotonic_ns()
                await self._publish(b"%020d" % began + filler)
                took.append(time.monotonic_ns() - began)

        async def all_of_it() -> None:
            await self._at_once(threads, pace)
            for _ in range(stops):
                await self._publish(STOP)

        self._run(all_of_it())
        return Spread.of(took)

    def receive(self, consumers: int) -> Spread:
        ages: list[int] = []

        async def wait() -> None:
            pull = await self._subscribe()
            while (body := (await self._take(1, pull))[0].data) != STOP:
                ages.append(time.monotonic_ns() - int(body[:STAMP_BYTES]))
            await pull.unsubscribe()

        self._run(self._at_once(consumers, wait))
        self._run(self._nats.flush())
        return Spread.of(ages)

    def clear(self) -> None:
        self._run(self._js.purge_stream(STREAM))

    def close(self) -> None:
        self._run(self._nats.close())


class FileClient(MemoryClient):
    """The same on file storage; how often that is synced is the server's configuration."""

    storage = StorageType.FILE


class ReplicatedClient(FileClient):
    """The same on three servers of a cluster."""

    replicas = 3

    async def _add_stream(self, config: StreamConfig) -> None:
        give_up = time.monotonic() + 15.0
        while True:  # a server listens before the cluster has a leader
            try:
                return await super()._add_stream(config)
            except (APIError, NatsTimeout):
                if time.monotonic() > give_up:
                    raise
                await asyncio.sleep(0.2)


class WorkQueueClient(ReplicatedClient):
    """The same on a stream that is a queue: what is acknowledged is removed, on all servers."""

    retention = RetentionPolicy.WORK_QUEUE
