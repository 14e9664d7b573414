"""Calls that block their thread; see `stiqueue.calls`."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any

import grpc

from stiqueue import forking
from stiqueue.calls import ChannelClosed
from stiqueue.endpoint import Endpoint


class BlockingResponses:
    """See `Responses`."""

    def __init__(self, call: Any, ended: Callable[[], None]) -> None:
        self._call = call
        """None once it is cancelled: a call that lives until the interpreter is torn down can hold that up for ever."""
        self._metadata: Iterable[tuple[str, Any]] = ()
        if not call.add_callback(ended):
            ended()  # it is over already

    async def read(self) -> Any | None:
        call = self._call
        if call is None:
            raise ChannelClosed
        try:
            return next(call, None)
        except grpc.RpcError:
            self._metadata = call.initial_metadata() or ()
            raise

    async def initial_metadata(self) -> Iterable[tuple[str, Any]]:
        return self._metadata

    def cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()


class BlockingCalls:
    """See `Calls`. gRPC's word for a call on a closed channel is ValueError."""

    def open(self, endpoint: Endpoint) -> grpc.Channel:
        forking.check()
        channel: grpc.Channel = endpoint.channel(grpc)
        return channel

    async def close(self, channel: grpc.Channel) -> None:
        channel.close()

    async def unary(self, method: Any, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout)
        except ValueError as error:
            raise ChannelClosed from error

    def begin(self, method: Any, request: Any, timeout: float) -> Callable[[], Coroutine[Any, Any, Any]]:
        try:
            call = method.future(request, timeout=timeout)
        except ValueError as error:
            raise ChannelClosed from error

        async def response() -> Any:
            return call.result()

        return response

    def background(self, method: Any, request: Any, timeout: float, done: Callable[[Any, Any | None], None]) -> None:
        def finished(call: Any) -> None:
            if call.code() is grpc.StatusCode.OK:
                done(call.result(), None)
            else:
                done(None, call)

        try:
            call = method.future(request, timeout=timeout)
        except ValueError as error:
            raise ChannelClosed from error
        call.add_done_callback(finished)

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        try:
            return list(method(request, timeout=timeout))
        except ValueError as error:
            raise ChannelClosed from error

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> BlockingResponses:
        try:
            return BlockingResponses(method(request), ended)
        except ValueError as error:
            raise ChannelClosed from error
