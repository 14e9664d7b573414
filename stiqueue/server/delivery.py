"""One `Deq` stream: its consumer, its credit and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import grpc.aio

from stiqueue._version import __version__
from stiqueue.errors import Unavailable
from stiqueue.message import Subscription
from stiqueue.rules.engine import Consumer, Engine
from stiqueue.rules.entry import Leased
from stiqueue.server.translation import write_messages
from stiqueue.wire.metadata import VERSION_KEY

Context = grpc.aio.ServicerContext[Any, Any]


class Bell:
    """Lets any thread wake one coroutine of a loop. A ring without a waiter ends the next wait."""

    def __init__(self) -> None:
        """Make a bell for the running loop."""
        self._loop = asyncio.get_running_loop()
        self._rung = False
        self._waiter: asyncio.Future[None] | None = None

    def ring(self) -> None:
        """Wake the coroutine. Never blocks; does nothing if the loop has ended."""
        if asyncio._get_running_loop() is self._loop:
            self._ring()
        else:
            with suppress(RuntimeError):  # the loop has ended, perhaps in this moment
                self._loop.call_soon_threadsafe(self._ring)

    def _ring(self) -> None:
        self._rung = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self, timeout: float | None) -> None:
        """Wait for a ring, for up to `timeout` seconds."""
        if not self._rung:
            waiter = self._waiter = self._loop.create_future()
            alarm = None if timeout is None else self._loop.call_later(timeout, self._ring)
            try:
                await waiter
            finally:
                self._waiter = None
                if alarm is not None:
                    alarm.cancel()
        self._rung = False


class Delivery:
    """Sends messages to one consumer. When the stream ends for any reason, its unsettled messages go back."""

    def __init__(self, engine: Engine, subscription: Subscription, context: Context) -> None:
        """Subscribe; at the end of the call of `context`, give all unsettled messages back."""
        self._bell = Bell()
        self._context = context
        self._stopping = False
        consumer: Consumer = engine.subscribe(subscription, self._bell.ring)
        self._consumer = consumer
        # Runs on the loop when the call is over; closing only marks, gives back and wakes. The context's own
        # add_done_callback does the same through this task, but ties the context into a cycle: the call would stay
        # until the garbage collector comes, and gRPC refuses streams beyond max_streams that still exist.
        task = asyncio.current_task()
        assert task is not None
        task.add_done_callback(lambda _: consumer.close())

    async def run(self, log: Callable[[Sequence[Leased]], None] | None) -> None:
        """Send messages until the subscription ends.

        Raises:
            Unavailable: the server is stopping and everything held is settled, or the client has left.
        """
        consumer, write = self._consumer, self._context.write
        try:
            # Tells the client that it is subscribed; without this nothing is sent before the first message.
            await self._context.send_initial_metadata(((VERSION_KEY, __version__),))
            leased_ids = consumer.leased_ids
            while (messages := consumer.take()) is not None:
                if messages:
                    if log:
                        log(messages)
                    lease_ms = round((consumer.ack_timeout or 0.0) * 1000)
                    await write(write_messages(messages, lease_ms, leased_ids))
                    leased_ids = ()
                else:
                    await self._bell.wait(consumer.patience())
            if leased_ids:
                await write(write_messages((), 0, leased_ids))
        except grpc.aio.InternalError as error:  # the client left during the write
            raise Unavailable(f"could not send: {error}") from None
        finally:
            consumer.close()
        if self._stopping:
            raise Unavailable("the server is stopping", "SHUTTING_DOWN")

    def stop(self, now: bool = False) -> None:
        """Send nothing more, and end once all messages are settled, or `now`."""
        self._stopping = True
        if now:
            self._consumer.close()
        else:
            self._consumer.finish()
