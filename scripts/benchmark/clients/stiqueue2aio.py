"""StiQueue 2 by its asyncio client: threads become tasks on its one event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from itertools import repeat
from typing import Any, TypeVar

from benchmark.clients.base import Client, Spread, body_of, timed
from stiqueue import AsyncSQClient

T = TypeVar("T")


class AsyncStiQueueClient(Client):
    """One `AsyncSQClient`; each task's `deq` acks its previous message while it waits for the next."""

    def __init__(self, port: int) -> None:
        self._loop = asyncio.new_event_loop()
        self._client = AsyncSQClient(port=port, queue="bench")
        self._ahead = AsyncSQClient(port=port, queue="bench", prefetch=100)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    async def _timed(self, number: int, call: Callable[[], Awaitable[object]]) -> list[int]:
        took = await timed(number, call)
        await self._client.ack()
        return took

    async def _at_once(self, tasks: int, number: int, call: Callable[[], Awaitable[object]]) -> None:
        await asyncio.gather(*(self._timed(max(1, number // tasks), call) for _ in range(tasks)))

    def enq_each(self, number: int, size: int) -> Spread:
        body = body_of(size)
        return Spread.of(self._run(self._timed(number, lambda: self._client.enq(body))))

    def deq_each(self, number: int) -> Spread:
        return Spread.of(self._run(self._timed(number, self._client.deq)))

    def enq_batches(self, number: int, size: int, batch: int) -> None:
        async def enqueue() -> None:
            if batch >= 1000:  # `enq_many` makes batches of 1,000 by itself, one under way at a time
                await self._client.enq_many(repeat(body_of(size), number))
                return
            for start in range(0, number, batch):
                await self._client.enq_many(list(repeat(body_of(size), min(batch, number - start))))

        self._run(enqueue())

    def enq_soon(self, number: int, size: int) -> None:
        async def enqueue() -> None:
            body = body_of(size)
            for _ in range(number):
                await self._client.enq_soon(body)
            await self._client.flush()

        self._run(enqueue())

    def deq_ahead(self, number: int) -> None:
        async def take() -> None:
            for _ in range(number):
                await self._ahead.deq()
            await self._ahead.disconnect()

        self._run(take())

    def deq_batches(self, number: int, prefetch: int) -> None:
        async def take() -> None:
            async with contextlib.aclosing(self._client.consume(prefetch=prefetch)) as messages:
                count = 0
                async for message in messages:
                    count += 1
                    if count == number:
                        await message.ack()  # the loop does not ask for another, which would ack it
                        break

        self._run(take())

    def enq_threads(self, number: int, size: int, threads: int) -> None:
        body = body_of(size)
        self._run(self._at_once(threads, number, lambda: self._client.enq(body)))

    def deq_threads(self, number: int, threads: int) -> None:
        self._run(self._at_once(threads, number, self._client.deq))

    def clear(self) -> None:
        self._run(self._client.purge())

    def close(self) -> None:
        self._run(self._ahead.close())
        self._run(self._client.close())
        self._loop.close()
