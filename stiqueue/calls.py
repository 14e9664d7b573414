"""The seam between the two kinds of gRPC channel, blocking and asyncio: how one call is made on each."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Protocol, TypeVar

from stiqueue.endpoint import Endpoint

A = TypeVar("A")


class ChannelClosed(Exception):
    """Raised when a call is made, or under way, on a channel that was closed."""


class Responses(Protocol):
    """The responses of a call that streams them."""

    async def read(self) -> Any | None:
        """Wait for the next response; None when the call ended well. Otherwise raises `grpc.RpcError`."""
        ...

    async def initial_metadata(self) -> Iterable[tuple[str, Any]]:
        """After `read` raised: return the call's initial metadata; empty when the server never answered."""
        ...

    def cancel(self) -> None:
        """End the call."""
        ...


class Calls(Protocol):
    """Calls on channels of one kind. All raise `grpc.RpcError` (that is also a `grpc.Call`) or `ChannelClosed`."""

    def open(self, endpoint: Endpoint) -> Any:
        """Make a channel to a server."""
        ...

    async def close(self, channel: Any) -> None:
        """Close a channel; its calls end."""
        ...

    async def unary(self, method: Any, request: Any, timeout: float) -> Any:
        """Make a call and wait for the response."""
        ...

    def begin(self, method: Any, request: Any, timeout: float) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Begin a call; the function returned waits for the response."""
        ...

    def background(self, method: Any, request: Any, timeout: float, done: Callable[[Any, Any | None], None]) -> None:
        """Begin a call that nobody waits for; `done` is called with (response, None) or (None, failed call)."""
        ...

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        """Make a call that streams its responses; return them all."""
        ...

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> Responses:
        """Make a call that streams its responses; `ended` is called once, however it ends."""
        ...
