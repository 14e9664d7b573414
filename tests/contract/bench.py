"""A workbench for one engine: short names for what tests do, and a clock that they move by hand."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

from support.clock import FakeClock

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Batch, Counts, Delivered, Outcome, PeekQuery, Receipt, Settlement, State, Subscription
from stiqueue.rules.engine import Consumer, ready
from stiqueue.rules.entry import Peeked

PATIENCE = 10.0
"""Real seconds that a message which must come may take."""


class Worker:
    """A consumer of the engine, with what it was given."""

    def __init__(self, bench: Bench, asked: Subscription) -> None:
        self._loop = asyncio.get_running_loop()
        self._rung = asyncio.Event()
        self._lock = threading.Lock()
        self._patience = bench.patience
        self.wakes = 0
        """How often the engine has called `wake`."""
        self.consumer: Consumer = bench.engine.subscribe(asked, self._wake)

    def _wake(self) -> None:
        with self._lock:
            self.wakes += 1
        self._loop.call_soon_threadsafe(self._rung.set)

    def take(self) -> Sequence[Delivered] | None:
        """Ask once, as the server does before it waits."""
        return self.consumer.take()

    def nothing(self) -> bool:
        """Whether there is nothing for it now."""
        return self.consumer.take() == []

    def ended(self) -> bool:
        """Whether its subscription is over."""
        return self.consumer.take() is None

    async def next(self) -> list[Delivered]:
        """Wait for the next messages."""

        async def wait() -> list[Delivered]:
            while not (messages := self.consumer.take()):
                assert messages is not None, "the subscription has ended"
                await self._rung.wait()
                self._rung.clear()
            return list(messages)

        return await asyncio.wait_for(wait(), self._patience)

    async def woken(self) -> None:
        """Wait until the engine has called `wake` since the last messages."""
        await asyncio.wait_for(self._rung.wait(), self._patience)

    async def rest(self) -> list[Delivered]:
        """Wait until the subscription has ended; return what came."""

        async def wait() -> list[Delivered]:
            found: list[Delivered] = []
            while (messages := self.consumer.take()) is not None:
                found += messages
                if not messages:
                    await self._rung.wait()
                    self._rung.clear()
            return found

        return await asyncio.wait_for(wait(), self._patience)

    async def get(self) -> Delivered:
        """Wait for one message, the only one that comes now."""
        (message,) = await self.next()
        return message

    async def bodies(self) -> list[str]:
        """Wait for the next messages and return their bodies."""
        return [message.body.decode() for message in await self.next()]

    def close(self) -> None:
        self.consumer.close()


class Bench:
    """One engine, on queue "q" where none is named."""

    def __init__(self, engine: Any, clock: FakeClock, patience: float = PATIENCE) -> None:
        self.engine = engine
        """A `LocalEngine`, or what behaves as one."""
        self.clock = clock
        self.patience = patience

    def worker(self, queue: str = "q", **asked: Any) -> Worker:
        """Open a consumer; `asked` are fields of `Subscription`."""
        return Worker(self, Subscription(queue, **asked))

    async def enq(self, *bodies: str, queue: str = "q", **asked: Any) -> Receipt:
        """Enqueue one batch; `asked` are fields of `Batch`."""
        return await ready(self.engine.enq(Batch(queue, [body.encode() for body in bodies], **asked)))

    async def settle(
        self, *messages: Delivered, outcome: Outcome, delay: float = 0.0, reason: str = "", close_stream: bool = False
    ) -> list[str]:
        """Settle leases; return those that were stale."""
        lease_ids = [message.lease_id for message in messages]
        return await ready(self.engine.settle(Settlement(lease_ids, outcome, delay, reason, close_stream)))

    async def ack(self, *messages: Delivered, close_stream: bool = False) -> list[str]:
        return await self.settle(*messages, outcome=Outcome.ACK, close_stream=close_stream)

    async def exchange(self, worker: Worker, message: Delivered) -> Delivered:
        """Ack a worker's message and wait for its next one, wherever that comes."""
        (found,) = await self._exchanged(message) or await worker.next()
        return found

    async def exchange_now(self, worker: Worker, message: Delivered) -> Delivered | None:
        """Ack a worker's message and take its next one; None when there is none now."""
        (found,) = await self._exchanged(message) or worker.take() or [None]
        return found

    async def _exchanged(self, message: Delivered) -> Sequence[Delivered]:
        given = await ready(self.engine.exchange(message.lease_id))
        assert given is not None, "the lease is stale"
        return given

    async def requeue(self, *messages: Delivered, delay: float = 0.0) -> list[str]:
        return await self.settle(*messages, outcome=Outcome.REQUEUE, delay=delay)

    async def dead_letter(self, *messages: Delivered, reason: str = "") -> list[str]:
        return await self.settle(*messages, outcome=Outcome.DEAD_LETTER, reason=reason)

    async def extend(self, *messages: Delivered, seconds: float) -> list[str]:
        return await self.settle(*messages, outcome=Outcome.EXTEND, delay=seconds)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and let the engine notice."""
        self.clock.advance(seconds)
        self.engine.tick()
        self.settle_down()

    def settle_down(self) -> None:
        """Wait until what the engine does by itself (dead letters of given back messages) is written."""
        if isinstance(self.engine, LocalEngine):
            self.engine.flush().result(10.0)

    async def counts(self, queue: str = "q") -> Counts:
        (counts,) = await self.engine.counts([queue])
        return counts

    async def queues(self) -> list[str]:
        """Return the names of all queues in use."""
        return [counts.queue for counts in await self.engine.counts([])]

    async def peek(self, queue: str = "q", **asked: Any) -> list[Peeked]:
        """Look; `asked` are fields of `PeekQuery`."""
        return [peeked async for chunk in self.engine.peek(PeekQuery(queue, **asked)) for peeked in chunk]

    async def peek_bodies(self, queue: str = "q", state: State = State.READY) -> list[str]:
        """Return the bodies of what `peek` sees."""
        return [peeked.entry.body.decode() for peeked in await self.peek(queue, state=state)]

    async def take_all(self, queue: str = "q", no_ack: bool = True) -> list[str]:
        """Take everything that is ready now, in the order of delivery."""
        worker = self.worker(queue, no_ack=no_ack, prefetch=1000, wait=0.0)
        taken = [message.body.decode() for message in await worker.rest()]
        worker.close()
        return taken
