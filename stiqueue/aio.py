"""The client of a StiQueue server for asyncio: `AsyncSQClient`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar, overload

from stiqueue.arguments import named
from stiqueue.client import admin, calling, dequeue, enqueue, look, single, soon, tidy
from stiqueue.client.base import document
from stiqueue.client.calls.aio_calls import AioCalls
from stiqueue.client.consume import Loop
from stiqueue.client.remote import Remote
from stiqueue.client.session import Session
from stiqueue.client.waiting.tasks import Tasks
from stiqueue.message import Body, Message

LONGEST_HOLD_SECONDS = 0.01
"""How long a loop over messages that are here keeps other tasks waiting, in addition to its body."""

P = ParamSpec("P")
T = TypeVar("T")


class AsyncMessage(Message):
    """A delivered message of an `AsyncSQClient`: a `Message` whose methods are awaited."""

    async def ack(self) -> bool:
        """Settle the message: it is done and forgotten."""
        return bool(await super().ack())

    async def requeue(self, delay: float | None = None, *, untouched: bool = False) -> bool:
        """Give the message back to its old place in the queue, see `Message.requeue`."""
        return bool(await super().requeue(delay, untouched=untouched))

    async def ack_and_enq(self, msg: Body, **options: Any) -> int:
        """Settle the message and enqueue `msg` in one step, see `Message.ack_and_enq`."""
        return int(await super().ack_and_enq(msg, **options))

    async def reply(self, msg: Body = b"", *, headers: Mapping[str, str] | None = None) -> int:
        """Answer the call that this message is, and settle the message, see `Message.reply`."""
        return int(await super().reply(msg, headers=headers))

    async def reply_error(self, error: BaseException) -> int:
        """Answer the call with an error, see `Message.reply_error`."""
        return int(await super().reply_error(error))

    async def dead_letter(self, reason: str = "") -> bool:
        """Move the message to the queue ``<queue>.dead``, with `reason` in its headers."""
        return bool(await super().dead_letter(reason))

    async def extend(self, seconds: float) -> bool:
        """Hold the lease for `seconds` from now, however long it had."""
        return bool(await super().extend(seconds))


class AsyncMessages(AsyncIterator[AsyncMessage]):
    """The iterator that `AsyncSQClient.consume` returns. For one task, except `finish`."""

    def __init__(self, loop: Loop[AsyncMessage]) -> None:
        """Iterate over the messages of `loop`."""
        self._loop = loop
        self._steps = self._run(loop)

    @staticmethod
    async def _run(loop: Loop[AsyncMessage]) -> AsyncGenerator[AsyncMessage, None]:
        try:
            while (messages := await loop.messages()) is not None:
                since = time.monotonic()
                for message in messages:
                    yield message
                    if time.monotonic() - since > LONGEST_HOLD_SECONDS:
                        await asyncio.sleep(0)
                        since = time.monotonic()
        finally:
            await loop.quit()

    def __aiter__(self) -> AsyncIterator[AsyncMessage]:
        return self._steps

    async def __anext__(self) -> AsyncMessage:
        return await anext(self._steps)

    async def aclose(self) -> None:
        """End the loop, see `Messages.close`."""
        await self._steps.aclose()

    async def finish(self) -> None:
        """Take no more messages, see `Messages.finish`."""
        await self._loop.retire()


def awaited(
    function: Callable[Concatenate[Session[AsyncMessage], P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[AsyncSQClient, P], Coroutine[Any, Any, T]]:
    """Turn a function written for every client into a method to await."""

    async def method(self: AsyncSQClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await function(self._session, *args, **kwargs)

    document(method, function)
    return method


class AsyncSQClient(Remote[AsyncMessage]):
    """`SQClient`'s methods for asyncio. For the tasks of one event loop; connects on first use.

    A task that is cancelled or fails gives back the message that its last `deq` returned, unless it was settled. Close
    the client by ``async with``: the end of an event loop closes it only if `asyncio.run` ends the loop.

    For example:

        async with AsyncSQClient() as client:
            await client.enq("Hello, World!")
            print((await client.deq()).decode())
    """

    _concurrency = Tasks
    _message = AsyncMessage
    _make_calls = AioCalls

    enq = awaited(enqueue.enq)
    enq_many = awaited(enqueue.enq_many)
    enq_and_ack = awaited(enqueue.enq_and_ack)
    enq_soon = awaited(soon.returning(asyncio.Future[int], soon.enq_soon))
    flush = awaited(soon.flush)
    ack = awaited(dequeue.ack)
    cnt = awaited(look.cnt)
    counts = awaited(look.counts)
    queues = awaited(look.queues)
    peek = awaited(look.peek)
    peek_messages = awaited(look.peek_messages)
    purge = awaited(tidy.purge)
    redrive = awaited(tidy.redrive)
    cancel = awaited(single.cancel)
    reschedule = awaited(single.reschedule)
    replace = awaited(single.replace)
    pause = awaited(admin.pause)
    resume = awaited(admin.resume)
    settings = awaited(admin.settings)
    all_settings = awaited(admin.all_settings)
    configure = awaited(admin.configure)
    call = awaited(calling.call)
    disconnect = awaited(Session.disconnect)

    @overload
    async def deq(self, timeout: None = None, *, queue: str | None = None) -> AsyncMessage: ...

    @overload
    async def deq(self, timeout: float | None, *, queue: str | None = None) -> AsyncMessage | None: ...

    async def deq(self, timeout: float | None = None, *, queue: str | None = None) -> AsyncMessage | None:
        """See `stiqueue.client.dequeue.deq`."""
        message = dequeue.next_ahead(self._session, timeout, queue)
        return await dequeue.deq(self._session, timeout, queue=queue) if message is None else message

    document(deq, dequeue.deq)

    async def take(self, message_id: int, *, queue: str | None = None) -> AsyncMessage | None:
        """See `stiqueue.client.single.take`."""
        return await single.take(self._session, message_id, queue=queue)

    document(take, single.take)

    @named("consume")
    def consume(
        self, prefetch: int = 1, timeout: float | None = None, *, queue: str | None = None, resume: bool = True
    ) -> AsyncMessages:
        """Iterate over messages; each is acked when the loop asks for the next one. As `SQClient.consume`.

        After a ``break`` or an exception, messages go back a moment later, when the event loop closes the iterator.
        `contextlib.aclosing` waits for that.
        """
        return AsyncMessages(Loop(self._session, prefetch, timeout, queue, resume))

    async def close(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice.

        Like `SQClient.close`, it waits for the messages of `enq_soon`, and raises the first failure that nobody has
        been told.
        """
        await self._session.close()

    async def __aenter__(self) -> AsyncSQClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close. After an exception, give messages back instead of acking them, and log failures."""
        await self._session.close(ack=kind is None)
