"""StiQueue as the broker of Taskiq: `StiQueueBroker`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from functools import partial
from typing import TYPE_CHECKING, Any

from taskiq import AckableMessage, AsyncBroker, BrokerMessage

from stiqueue import AsyncMessage, AsyncSQClient, StiQueueError, Unavailable

if TYPE_CHECKING:
    from stiqueue.aio import AsyncMessages

logger = logging.getLogger("stiqueue.taskiq")

MOST_TASKS = 100
"""How many tasks a worker of Taskiq runs at a time by default: its option ``--max-async-tasks``."""
CLOSE_SECONDS = 5.0
"""How long `shutdown` waits for acks of tasks that have just ended."""


class StiQueueBroker(AsyncBroker):
    """Sends tasks to a queue of a StiQueue server, and listens to it: ``broker = StiQueueBroker("127.0.0.1", 1234)``.

    A task is acked when Taskiq says so, after it ran by default; until then the worker's connection holds it. Labels of
    a task that the broker reads: ``delay`` (seconds, kept by the server), ``priority`` (0..255, higher first) and
    ``queue_name`` (another queue than the broker's).
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 1234,
        *,
        queue: str = "taskiq",
        prefetch: int = MOST_TASKS,
        **options: Any,
    ) -> None:
        """Remember where the server is; nothing is opened before the first task.

        Args:
            host: the server's address.
            port: its port.
            queue: the queue of tasks without a label ``queue_name``, and the one that `listen` reads.
            prefetch: how many tasks a worker holds at a time, 1..10,000. Let it be what ``--max-async-tasks`` is: more
                would wait in this worker while others idle.
            options: those of `AsyncSQClient`, such as `tls` and `token`.

        Raises:
            InvalidRequest: an argument has the wrong type or is out of range.
            TypeError: there is no such option.
        """
        super().__init__()
        self._client = AsyncSQClient(host, port, queue=queue, **options, auto_ack=False)
        self._client.consume(prefetch)  # refuses it now, not in the worker
        self._prefetch = prefetch
        self._ending: set[asyncio.Task[None]] = set()
        """Subscriptions that bring nothing more, until what they brought is settled."""

    async def kick(self, message: BrokerMessage) -> None:
        """Enqueue a task; return once the server has it.

        Raises:
            InvalidRequest: a label is out of range.
            Unavailable: the server stayed away for the client's `timeout`.
        """
        labels = message.labels
        await self._client.enq(
            message.message,
            queue=labels.get("queue_name"),
            priority=int(labels.get("priority") or 0),
            delay=float(labels.get("delay") or 0),
        )

    async def listen(self) -> AsyncGenerator[AckableMessage, None]:
        """Yield tasks. When it is closed, tasks that it has not yielded go back to the queue at once."""
        while True:
            try:
                async for message in self._listen():
                    yield message
            except Unavailable as error:
                logger.warning("still waiting for the server: %s", error)

    async def _listen(self) -> AsyncGenerator[AckableMessage, None]:
        messages = self._client.consume(self._prefetch)
        following: asyncio.Future[AsyncMessage] | None = None
        try:
            while True:
                following = asyncio.ensure_future(anext(messages))
                # Taskiq cancels the wait when it stops, which must not end the stream: tasks that run are leased to it.
                message = await asyncio.shield(following)
                following = None
                yield AckableMessage(data=bytes(message), ack=partial(self._ack, message))
        finally:
            ending = asyncio.ensure_future(self._end(messages, following))
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def _ack(self, message: AsyncMessage) -> None:
        if not await message.ack():
            logger.warning("task of message %d was acked too late: it is delivered again", message.id)

    async def _end(self, messages: AsyncMessages, following: asyncio.Future[AsyncMessage] | None) -> None:
        """Give back what was not yielded, and follow the stream until what was yielded is settled."""
        try:
            await messages.finish()
            if following is not None:
                message = await following
                await message.requeue(untouched=True)
            async for _ in messages:
                pass
        except (StopAsyncIteration, StiQueueError):  # what ended `listen` was raised there
            pass

    async def shutdown(self) -> None:
        """Wait for a moment for tasks to be settled, give back the others, and disconnect."""
        await super().shutdown()
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
        await self._client.close()
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_SECONDS)
