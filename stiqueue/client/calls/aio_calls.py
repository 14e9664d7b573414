"""Calls that suspend their task, by `grpc.aio`; see `stiqueue.client.calls.kinds`.

A call that the client cancels, because its channel or subscription is closed, ends with the same
`asyncio.CancelledError` as a call whose task is cancelled. Only the latter may reach the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio

from stiqueue.client.calls import forking
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.gate import GATE
from stiqueue.client.calls.kinds import STALL_SECONDS, ChannelClosed, Source
from stiqueue.wire import greenlets


def _task_is_cancelled() -> bool:
    """Whether the cancellation just caught is that of the task. On Python 3.10 always False."""
    task = asyncio.current_task()
    return task is not None and hasattr(task, "cancelling") and task.cancelling() > 0


class AioResponses:
    """See `Responses`."""

    def __init__(self, call: Any, ended: Callable[[], None]) -> None:
        self._call = call
        self._cancelled = False
        call.add_done_callback(lambda _: ended())

    @property
    def is_over(self) -> bool:
        return self._cancelled or bool(self._call.done())

    async def read(self) -> Any | None:
        try:
            response = await self._call.read()
        except asyncio.CancelledError:
            if self._cancelled and not _task_is_cancelled():
                raise ChannelClosed from None
            raise
        return None if response is grpc.aio.EOF else response

    async def initial_metadata(self) -> Iterable[tuple[str, Any]]:
        if not self._call.done():
            return ()
        metadata: Iterable[tuple[str, Any]] = await self._call.initial_metadata()
        return metadata

    def cancel(self) -> None:
        self._cancelled = True
        self._call.cancel()


class _Requests:
    """Iterates over the requests of a pipe. Not a generator: an event loop closes those before the client can leave."""

    def __init__(self, feed: Source) -> None:
        self._feed = feed
        self._bell = asyncio.Event()
        self._was_sent = False
        self.was_heard = False
        self.has_ended = False
        self.ring = self._bell.set

    def __aiter__(self) -> _Requests:
        return self

    async def __anext__(self) -> Any:
        take, pause, _, _, stalled = self._feed
        while not self.has_ended:
            self._bell.clear()
            request = take()
            if request is not None:
                self._was_sent = True
                return request
            seconds = pause()
            is_silent = self._was_sent and not self.was_heard
            if is_silent:
                seconds = STALL_SECONDS if seconds is None else min(seconds, STALL_SECONDS)
            has_rung = await self._rung(seconds)
            if is_silent and not has_rung and not self.was_heard:
                stalled()
        raise StopAsyncIteration

    async def _rung(self, seconds: float | None) -> bool:
        """Wait for the bell, for up to `seconds`; return whether it was rung."""
        if seconds is None:
            return await self._bell.wait()
        timed_out = False

        def time_out() -> None:
            nonlocal timed_out
            timed_out = True
            self._bell.set()

        late = asyncio.get_running_loop().call_later(seconds, time_out)
        try:
            await self._bell.wait()
        finally:
            late.cancel()
        return not timed_out


class AioPipe:
    """See `PipeCall`. For the tasks of one event loop."""

    def __init__(self, method: Any, feed: Source, ended: Callable[[], None]) -> None:
        self._requests = _Requests(feed)
        self.ring = self._requests.ring
        self._call: Any = method(self._requests)
        self._call.add_done_callback(lambda _: ended())
        GATE.park_before_fork(self)

    async def read(self) -> Any | None:
        try:
            response = await self._call.read()
        except asyncio.CancelledError:
            if self._requests.has_ended and not _task_is_cancelled():
                raise ChannelClosed from None
            raise
        self._requests.was_heard = True
        return None if response is grpc.aio.EOF else response

    def cancel(self) -> None:
        self._requests.has_ended = True
        self.ring()
        self._call.cancel()

    park = cancel
    """Before a fork. The next pipe repeats the requests without an answer."""


class AioCalls:
    """See `Calls`. For one event loop."""

    def __init__(self) -> None:
        self._closed = False
        self._background: set[asyncio.Task[None]] = set()

    def open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        forking.check_aio()
        greenlets.check("AsyncSQClient")
        forking.opened()
        channel: grpc.aio.Channel = endpoint.channel(grpc.aio)
        return channel

    async def close(self, channel: grpc.aio.Channel) -> None:
        self._closed = True
        try:
            await channel.close()
        finally:
            forking.closed()

    async def unary(self, method: Any, request: Any, timeout: float) -> Any:
        return await self._response(self._begin(method, request, timeout))

    def begin(
        self, method: Any, request: Any, timeout: float, ended: Callable[[], None]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        call = self._begin(method, request, timeout)
        call.add_done_callback(lambda _: ended())
        return lambda: self._response(call)

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        call = self._begin(method, request, timeout)

        async def collected() -> list[Any]:
            return [response async for response in call]

        return list(await self._response(collected()))

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> AioResponses:
        return AioResponses(self._begin(method, request, None), ended)

    def pipe(self, method: Any, feed: Source, ended: Callable[[], None]) -> AioPipe:
        try:
            return AioPipe(method, feed, ended)
        except grpc.aio.UsageError as error:
            raise ChannelClosed from error

    def _begin(self, method: Any, request: Any, timeout: float | None) -> Any:
        try:
            return method(request, timeout=timeout)
        except grpc.aio.UsageError as error:  # the channel is closed
            raise ChannelClosed from error

    async def _response(self, call: Any) -> Any:
        try:
            return await call
        except asyncio.CancelledError:
            if self._closed and not _task_is_cancelled():
                raise ChannelClosed from None
            raise
