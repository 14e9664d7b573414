"""An engine that talks to a server elsewhere, as the workbench wants it: on its own loop, and with a little patience.

The tests ask "is there nothing now?" right after something happened. A local engine knows at once; here the answer is
taken when nothing has come for a moment.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from support.clock import FakeClock

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.jetstream import JetStreamEngine
from stiqueue.engines.jetstream.consumer import JetStreamConsumer
from stiqueue.engines.jetstream.names import CONSUMER
from stiqueue.message import Batch, Counts, Delivered, Durability, PeekQuery, Receipt, Settlement, Subscription
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.rules.entry import Leased, Peeked

QUIET_SECONDS = 0.12
"""Nothing has come when nothing came for so long."""
BEHIND_SECONDS = 0.1
"""After so much silence the cluster is asked whether more messages follow those that came."""
LONGEST_SECONDS = 2.0
"""How long a message that the cluster has for a request may take; it may also be held back, by `max_leased`."""
CALL_SECONDS = 30.0

T = TypeVar("T")


def new_engine(
    address: str, clock: FakeClock, bounds: Bounds | None, max_attempts: int, prefix: str, replicas: int = 1
) -> JetStreamEngine:
    """Return an engine whose streams nobody else has."""
    return JetStreamEngine(address, replicas, False, bounds, max_attempts, prefix=prefix, clock=clock)


class RemoteEngine:
    """Runs a `JetStreamEngine` on an event loop in a thread, as the server does, and forwards to it."""

    def __init__(self, engine: JetStreamEngine) -> None:
        self.engine = engine
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine under contract", daemon=True)
        self._thread.start()
        self._ended = False
        self.run(engine.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` on the engine's loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(CALL_SECONDS)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call `function` on the engine's loop."""

        async def work() -> T:
            return function(*arguments)

        return self.run(work())

    def settle_down(self) -> None:
        """Wait until what the engine has begun is done."""

        async def work() -> None:
            while self.engine._work:
                await asyncio.wait(list(self.engine._work), timeout=5.0)

        self.run(work())

    async def _forward(self, work: Coroutine[Any, Any, T]) -> T:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    @property
    def durability(self) -> Durability:
        return self.engine.durability

    async def enq(self, batch: Batch) -> Receipt:
        return await self._forward(self.engine.enq(batch))

    def subscribe(self, subscription: Subscription, wake: Callable[[], None]) -> RemoteConsumer:
        return RemoteConsumer(self, subscription, wake)

    async def settle(self, settlement: Settlement) -> list[str]:
        answer = await self._forward(self.engine.settle(settlement))
        self.settle_down()
        return answer

    async def exchange(self, lease_id: str) -> Sequence[Leased] | None:
        answer = await self._forward(self.engine.exchange(lease_id))
        self.settle_down()
        return answer

    async def counts(self, queues: Sequence[str]) -> list[Counts]:
        return await self._forward(self.engine.counts(queues))

    async def peek(self, query: PeekQuery) -> AsyncIterator[list[Peeked]]:
        async def work() -> list[list[Peeked]]:
            return [chunk async for chunk in self.engine.peek(query)]

        for chunk in await self._forward(work()):
            yield chunk

    async def configure(self, change: QueueSettings, reset: Sequence[str]) -> QueueSettings:
        return await self._forward(self.engine.configure(change, reset))

    def settings(self, queue: str) -> SettingsReport:
        return self.call(self.engine.settings, queue)

    def fix(self, settings: Sequence[QueueSettings]) -> None:
        self.call(self.engine.fix, settings)

    def tick(self) -> None:
        self.call(self.engine.tick)
        self.settle_down()

    async def close(self) -> None:
        await self._forward(self.engine.close())

    def end(self) -> None:
        """Close the engine and end its loop."""
        if not self._ended:
            self._ended = True
            self.run(self.engine.close())
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(CALL_SECONDS)
            self._loop.close()


class RemoteConsumer:
    """A consumer on the engine's loop."""

    def __init__(self, remote: RemoteEngine, asked: Subscription, wake: Callable[[], None]) -> None:
        self._remote = remote
        self._wake = wake
        self._rung = threading.Event()
        self._consumer: JetStreamConsumer = remote.call(remote.engine.subscribe, asked, self._ring)

    def _ring(self) -> None:
        self._rung.set()
        self._wake()

    def take(self) -> Sequence[Delivered] | None:
        quiet_since = time.monotonic()
        while True:
            self._rung.clear()
            messages = self._remote.call(self._consumer.take)
            if messages is None:
                self._remote.settle_down()
            if messages:
                return self._with_those_behind(list(messages))
            if messages is None:
                return messages
            if self._remote.call(self._is_busy):
                quiet_since = time.monotonic()
            left = quiet_since + QUIET_SECONDS - time.monotonic()
            if not self._rung.wait(max(0.01, min(left, 0.05))) and left <= 0:
                return messages

    def _with_those_behind(self, messages: list[Delivered]) -> list[Delivered]:
        """Return messages with those that come right after them, of the same request."""
        last = time.monotonic()
        while self._remote.call(lambda: self._consumer._pull.expected > 0):
            self._rung.clear()
            if more := self._inbox():
                messages += more
                last = time.monotonic()
            elif not self._rung.wait(BEHIND_SECONDS):
                follows = self._remote.run(self._follows()) and time.monotonic() < last + LONGEST_SECONDS
                messages += self._inbox()  # what was sent before that answer is here
                if not follows:
                    break
        return messages

    def _inbox(self) -> Sequence[Delivered]:
        return self._remote.call(lambda: self._consumer._inbox and self._consumer.take()) or []

    async def _follows(self) -> bool:
        """Ask whether the stream has messages that nobody was sent."""
        names, queue = self._remote.engine._names, self._consumer.asked.queue
        info = await self._remote.engine.cluster.call(f"CONSUMER.INFO.{names.stream(queue)}.{CONSUMER}")
        return bool(info["num_pending"])

    def _is_busy(self) -> bool:
        """Whether something is surely on its way."""
        consumer = self._consumer
        asked = bool(consumer._pull.stands)
        settling = bool(consumer._unleased)
        return bool(settling or consumer._pull.is_asking or (asked and consumer.asked.wait == 0 and not consumer._held))

    @property
    def ack_timeout(self) -> float | None:
        return self._remote.call(lambda: self._consumer.ack_timeout)

    def patience(self) -> float | None:
        return self._remote.call(self._consumer.patience)

    def finish(self) -> None:
        self._remote.call(self._consumer.finish)
        self._remote.settle_down()

    def close(self) -> None:
        self._remote.call(self._consumer.close)
        self._remote.settle_down()
