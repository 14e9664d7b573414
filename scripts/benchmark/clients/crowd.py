"""Thousands of idle StiQueue consumers in one process: raw `Deq` streams on many connections, on one event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import grpc

from benchmark.clients.base import Client
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

STREAMS_PER_CHANNEL = 100
"""What a server allows on one connection."""
OPENED_AT_ONCE = 500
CHANNEL_OPTIONS = [("grpc.use_local_subchannel_pool", 1)]
T = TypeVar("T")


class Crowd(Client):
    """Consumers that wait on one queue, and hold what they are given until `collect` acks it."""

    def __init__(self, port: int, queue: str = "crowd") -> None:
        self._target = f"127.0.0.1:{port}"
        self._queue = queue
        self._calls: list[Any] = []
        self._channels: list[grpc.aio.Channel] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._leases: list[str] = []
        self._arrivals: list[int] = []
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._acks = self._run(self._open_channel())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _open_channel(self) -> Any:
        channel = grpc.aio.insecure_channel(self._target, options=CHANNEL_OPTIONS)
        self._channels.append(channel)
        return queue_pb2_grpc.QueueServiceStub(channel)

    def grow(self, number: int) -> int:
        """Have `number` consumers waiting, more than so far; return when the server has accepted each."""
        self._run(self._grow(number))
        return len(self._calls)

    async def _grow(self, number: int) -> None:
        while len(self._calls) < number:
            opened = []
            for _ in range(min(OPENED_AT_ONCE, number - len(self._calls))):
                if len(self._calls) % STREAMS_PER_CHANNEL == 0:
                    self._stub = await self._open_channel()
                call = self._stub.Deq(pb.DeqRequest(queue=self._queue, prefetch=1))
                self._calls.append(call)
                opened.append(call.initial_metadata())
                self._tasks.append(asyncio.ensure_future(self._listen(call)))
            await asyncio.gather(*opened)

    async def _listen(self, call: Any) -> None:
        async for response in call:
            self._arrivals.append(time.monotonic_ns())
            self._leases += [message.lease_id for message in response.messages]

    def collect(self, number: int, patience: float = 60.0) -> dict[str, float]:
        """Wait until `number` messages have come since the last time, ack them; say how many and when the last came."""
        deadline = time.monotonic() + patience
        while len(self._leases) < number and time.monotonic() < deadline:
            time.sleep(0.01)
        arrivals, self._arrivals = self._arrivals, []
        leases, self._leases = self._leases, []
        if leases:
            self._run(self._ack(leases))
        return {"last": max(arrivals, default=0) / 1e9, "number": len(leases)}

    async def _ack(self, leases: list[str]) -> None:
        await self._acks.Ack(pb.AckRequest(lease_ids=leases))

    def close(self) -> None:
        async def end() -> None:
            for call in self._calls:
                call.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for channel in self._channels:
                await channel.close()

        self._run(end())
