"""`AsyncSQClient` under the names and in the manner of `SQClient`, so that one suite is for both.

The asyncio client lives on an event loop in a thread of its own. Each thread that uses it here has one task there, so
what a test says of threads holds for tasks.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from stiqueue import AsyncMessage, AsyncSQClient, Counts, Message, PeekedMessage
from stiqueue.aio import AsyncMessages
from stiqueue.message import Body, Settlement

PATIENCE = 60.0
"""Seconds that a test may wait for a call in vain; most of them wait for less."""


class EventLoop:
    """An event loop in a thread of its own, with a task for each thread that uses it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._local = threading.local()
        self._tasks: list[asyncio.Queue[Any]] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="event loop of a test", daemon=True)
        self._thread.start()

    def call(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Let this thread's task await `work`; return what it returns."""
        orders = getattr(self._local, "orders", None)
        if orders is None:
            orders = self._local.orders = asyncio.run_coroutine_threadsafe(self._begin_task(), self._loop).result()
        done: Future[Any] = Future()
        self._loop.call_soon_threadsafe(orders.put_nowait, (work, done))
        return done.result(PATIENCE)

    async def _begin_task(self) -> asyncio.Queue[Any]:
        orders: asyncio.Queue[Any] = asyncio.Queue()

        async def obey() -> None:
            while (order := await orders.get()) is not None:
                work, done = order
                try:
                    done.set_result(await work)
                except BaseException as error:
                    done.set_exception(error)

        orders.task = asyncio.ensure_future(obey())  # type: ignore[attr-defined]
        self._tasks.append(orders)
        return orders

    def close(self) -> None:
        """End all tasks, as `asyncio.run` does, and the loop."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.get_running_loop().shutdown_asyncgens()

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()


class _Holder:
    """Settles a message on its event loop."""

    def __init__(self, loop: EventLoop, message: AsyncMessage) -> None:
        self._loop = loop
        self.message = message

    def settle(self, message: Message, settlement: Settlement) -> Any:
        async def settle() -> Any:
            return await self.message._answer(settlement)

        return self._loop.call(settle())

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        return self._loop.call(self.message.ack_and_enq(msg, **options))

    def retry_delay(self, message: Message) -> float:
        return self.message._held().retry_delay(self.message)


class _BridgedFuture(Future[int]):
    """A future of threads that gets what one of asyncio gets, which hears of who asks."""

    def __init__(self, theirs: asyncio.Future[int]) -> None:
        super().__init__()
        self._theirs = theirs
        theirs.add_done_callback(self._done)

    def _done(self, theirs: asyncio.Future[int]) -> None:
        error = None if theirs.cancelled() else asyncio.Future.exception(theirs)  # nobody has asked yet
        if theirs.cancelled():
            self.cancel()
        elif error is not None:
            self.set_exception(error)
        else:
            self.set_result(asyncio.Future.result(theirs))

    def result(self, timeout: float | None = None) -> int:
        super().result(timeout)
        return self._theirs.result()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        super().exception(timeout)
        return self._theirs.exception()


class BridgedMessages:
    """What `AsyncSQClient.consume` returns, for threads."""

    def __init__(
        self, loop: EventLoop, messages: AsyncMessages, blocking: Callable[[AsyncMessage | None], Message | None]
    ) -> None:
        self._loop, self._messages = loop, messages
        self._steps = self._run(loop, messages, blocking)

    @staticmethod  # so that it is closed as soon as nobody has it any more
    def _run(
        loop: EventLoop, messages: AsyncMessages, blocking: Callable[[AsyncMessage | None], Message | None]
    ) -> Iterator[Message]:
        async def following() -> AsyncMessage | None:
            return await anext(messages, None)

        try:
            while (message := blocking(loop.call(following()))) is not None:
                yield message
        finally:
            loop.call(messages.aclose())

    def __iter__(self) -> Iterator[Message]:
        return self._steps

    def __next__(self) -> Message:
        return next(self._steps)

    def close(self) -> None:
        self._steps.close()  # type: ignore[attr-defined]

    def finish(self) -> None:
        self._loop.call(self._messages.finish())


class BridgedClient:
    """An `AsyncSQClient` that blocks."""

    def __init__(self, loop: EventLoop, **options: Any) -> None:
        self._loop = loop
        self.client = AsyncSQClient(**options)

    def _blocking(self, message: AsyncMessage | None) -> Message | None:
        if message is None:
            return None
        assert isinstance(message, AsyncMessage)
        return Message.wrap(message._delivered, message.queue, _Holder(self._loop, message))

    def deq(self, *args: Any, **options: Any) -> Message | None:
        return self._blocking(self._loop.call(self.client.deq(*args, **options)))

    def ack(self, *messages: Any) -> bool:
        return bool(self._loop.call(self.client.ack(*(message._holder.message for message in messages))))

    def consume(self, *args: Any, **options: Any) -> BridgedMessages:
        return BridgedMessages(self._loop, self.client.consume(*args, **options), self._blocking)

    def enq(self, *args: Any, **options: Any) -> int:
        return int(self._loop.call(self.client.enq(*args, **options)))

    def enq_and_ack(self, msg: Body, message: Any, **options: Any) -> int:
        theirs = message._holder.message if isinstance(message, Message) else message
        return int(self._loop.call(self.client.enq_and_ack(msg, theirs, **options)))

    def enq_many(self, *args: Any, **options: Any) -> int:
        return int(self._loop.call(self.client.enq_many(*args, **options)))

    def enq_soon(self, *args: Any, **options: Any) -> Future[int]:
        async def begin() -> _BridgedFuture:
            return _BridgedFuture(await self.client.enq_soon(*args, **options))

        return self._loop.call(begin())  # type: ignore[no-any-return]

    def flush(self, **options: Any) -> None:
        self._loop.call(self.client.flush(**options))

    def cnt(self, **options: Any) -> int:
        return int(self._loop.call(self.client.cnt(**options)))

    def counts(self, **options: Any) -> Counts:
        return self._loop.call(self.client.counts(**options))  # type: ignore[no-any-return]

    def queues(self, **options: Any) -> dict[str, Counts]:
        return self._loop.call(self.client.queues(**options))  # type: ignore[no-any-return]

    def peek(self, *args: Any, **options: Any) -> bytes:
        return self._loop.call(self.client.peek(*args, **options))  # type: ignore[no-any-return]

    def peek_messages(self, *args: Any, **options: Any) -> list[PeekedMessage]:
        return self._loop.call(self.client.peek_messages(*args, **options))  # type: ignore[no-any-return]

    def purge(self, **options: Any) -> int:
        return int(self._loop.call(self.client.purge(**options)))

    def redrive(self, *args: Any, **options: Any) -> int:
        return int(self._loop.call(self.client.redrive(*args, **options)))

    def configure(self, **options: Any) -> Any:
        return self._loop.call(self.client.configure(**options))

    def disconnect(self) -> None:
        self._loop.call(self.client.disconnect())

    def close(self) -> None:
        self._loop.call(self.client.close())

    def __enter__(self) -> BridgedClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call(self.client.__aexit__(kind, error, trace))
