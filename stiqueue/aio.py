"""The client of a StiQueue server for asyncio: `AsyncSQClient`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from stiqueue import dequeueing, enqueueing, looking, tidying
from stiqueue.aio_calls import AioCalls
from stiqueue.client import introduce
from stiqueue.consuming import Loop
from stiqueue.message import Body, Message
from stiqueue.remote import Remote
from stiqueue.session import Session
from stiqueue.tasks import Tasks

LONGEST_HOLD_SECONDS = 0.01
"""How long a loop over messages that are here already keeps other tasks waiting, beside what its own body takes."""

P = ParamSpec("P")
T = TypeVar("T")


class AsyncMessage(Message):
    """A delivered message of an `AsyncSQClient`: a `Message` whose methods are awaited."""

    async def ack(self) -> bool:
        """Settle the message: it is done and forgotten."""
        return bool(await super().ack())

    async def requeue(self, delay: float | None = None) -> bool:
        """Give the message back to its old place in the queue, see `Message.requeue`."""
        return bool(await super().requeue(delay))

    async def ack_and_enq(self, msg: Body, **options: Any) -> int:
        """Settle the message and enqueue `msg` in one step, see `Message.ack_and_enq`."""
        return int(await super().ack_and_enq(msg, **options))

    async def dead_letter(self, reason: str = "") -> bool:
        """Move the message to the queue ``<queue>.dead``, with `reason` in its headers."""
        return bool(await super().dead_letter(reason))

    async def extend(self, seconds: float) -> bool:
        """Hold the lease for `seconds` from now, however long it had."""
        return bool(await super().extend(seconds))


def awaited(
    function: Callable[Concatenate[Session[AsyncMessage], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncSQClient, P], Coroutine[Any, Any, T]]:
    """Make a method that is awaited of a function that is written for every client."""

    async def method(self: AsyncSQClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await function(self._session, *args, **kwargs)

    introduce(method, function)
    return method


class AsyncSQClient(Remote[AsyncMessage]):
    """`SQClient`'s names for asyncio. For the tasks of one event loop; connects on first use.

    A task that is cancelled or fails gives back the message that its last `deq` returned, unless it was settled. Close
    it by ``async with``: the end of an event loop can do the same only where `asyncio.run` ends it.

    Example:
        async with AsyncSQClient() as client:
            await client.enq("Hello, World!")
            print((await client.deq()).decode())
    """

    _concurrency = Tasks
    _message = AsyncMessage
    _make_calls = AioCalls

    enq = awaited(enqueueing.enq)
    enq_many = awaited(enqueueing.enq_many)
    enq_and_ack = awaited(enqueueing.enq_and_ack)
    deq = awaited(dequeueing.deq)
    ack = awaited(dequeueing.ack)
    cnt = awaited(looking.cnt)
    counts = awaited(looking.counts)
    queues = awaited(looking.queues)
    peek = awaited(looking.peek)
    peek_messages = awaited(looking.peek_messages)
    purge = awaited(tidying.purge)
    redrive = awaited(tidying.redrive)
    disconnect = awaited(Session.disconnect)

    async def consume(
        self, prefetch: int = 1, timeout: float | None = None, *, queue: str | None = None
    ) -> AsyncGenerator[AsyncMessage, None]:
        """Iterate over messages; each is acked when the loop asks for the next one. As `SQClient.consume`.

        What a ``break`` or an exception leaves is given back a moment later, when the event loop closes the iterator;
        `contextlib.aclosing` waits for that.
        """
        loop = Loop(self._session, prefetch, timeout, queue)
        try:
            while (messages := await loop.messages()) is not None:
                since = time.monotonic()
                for message in messages:
                    yield message
                    if time.monotonic() - since > LONGEST_HOLD_SECONDS:
                        await asyncio.sleep(0)
                        since = time.monotonic()
        finally:
            await loop.leave()

    async def close(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice."""
        await self._session.close()

    async def __aenter__(self) -> AsyncSQClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; after an exception what `deq` returned is given back instead of acked."""
        await self._session.close(ack=kind is None)
