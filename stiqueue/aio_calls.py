"""Calls that suspend their task, by `grpc.aio`; see `stiqueue.calls`.

A call that is cancelled by us, because its channel is closed or its subscription is given up, ends with the same
`asyncio.CancelledError` as one whose task is cancelled. Only the latter may reach the task.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import grpc
import grpc.aio

from stiqueue import forking
from stiqueue.calls import ChannelClosed
from stiqueue.endpoint import Endpoint


def _task_is_cancelled() -> bool:
    """Whether the cancellation that was just caught is one of the task. Python 3.10 cannot tell."""
    task = asyncio.current_task()
    return task is not None and hasattr(task, "cancelling") and task.cancelling() > 0


class AioResponses:
    """See `Responses`."""

    def __init__(self, call: Any, ended: Callable[[], None]) -> None:
        self._call = call
        self._cancelled = False
        call.add_done_callback(lambda _: ended())

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


class AioCalls:
    """See `Calls`. For one event loop."""

    def __init__(self) -> None:
        self._closed = False
        self._background: set[asyncio.Task[None]] = set()

    def open(self, endpoint: Endpoint) -> grpc.aio.Channel:
        forking.check_aio()
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

    def begin(self, method: Any, request: Any, timeout: float) -> Callable[[], Coroutine[Any, Any, Any]]:
        call = self._begin(method, request, timeout)
        return lambda: self._response(call)

    def background(self, method: Any, request: Any, timeout: float, done: Callable[[Any, Any | None], None]) -> None:
        call = self._begin(method, request, timeout)

        async def wait() -> None:
            try:
                response = await call
            except grpc.RpcError as error:
                done(None, error)
            except asyncio.CancelledError:
                done(None, None)
                raise
            else:
                done(response, None)

        task = asyncio.ensure_future(wait())
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        call = self._begin(method, request, timeout)

        async def collected() -> list[Any]:
            return [response async for response in call]

        return list(await self._response(collected()))

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> AioResponses:
        return AioResponses(self._begin(method, request, None), ended)

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
