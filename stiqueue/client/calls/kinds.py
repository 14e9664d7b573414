"""The seam between the two kinds of gRPC channel, blocking and asyncio: how to make a call."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, Protocol, TypeVar

import grpc

from stiqueue.client.calls.endpoint import Endpoint

A = TypeVar("A")


STALL_SECONDS = 1.0
"""How long a new pipe may be silent. A server greets it at once, so after this, something on the way buffers it."""


class ChannelClosed(Exception):
    """Raised by calls on a closed channel."""


class WithoutResponse(grpc.RpcError):
    """Raised when a unary call ended well but without a response: what the server did is unknown."""

    def code(self) -> grpc.StatusCode:
        """Return the status code, as `grpc.Call` does."""
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        """Return the text of the status."""
        return "the call ended without a response"

    def trailing_metadata(self) -> Any:
        """Return the metadata that came with the status."""
        return ()

    initial_metadata = trailing_metadata


class Responses(Protocol):
    """The responses of a call that streams them."""

    @property
    def is_over(self) -> bool:
        """Whether the call has ended, even if nobody has read that yet."""
        ...

    async def read(self) -> Any | None:
        """Wait for the next response; None when the call ended well. Otherwise raises `grpc.RpcError`."""
        ...

    async def initial_metadata(self) -> Iterable[tuple[str, Any]]:
        """After `read` raised: return the call's initial metadata; empty when the server never answered."""
        ...

    def cancel(self) -> None:
        """End the call."""
        ...


class PipeCall(Protocol):
    """A call that streams both ways. `read` is for one thread or task, all else for any."""

    async def read(self) -> Any | None:
        """Wait for the next response and return what `Source.heard` returned; None when the call ended well.

        Otherwise raises `grpc.RpcError`.
        """
        ...

    def ring(self) -> None:
        """Announce that there may be something to send."""
        ...

    def cancel(self) -> None:
        """End the call. Safe to call twice."""
        ...


class Source(NamedTuple):
    """The source of a `PipeCall`'s requests. Each may be called on any thread, and never blocks."""

    take: Callable[[], Any | None]
    """Returns the next request; None when there is none for now."""
    pause: Callable[[], float | None]
    """Returns in how many seconds `take` has a request even if nobody rings; None: never."""
    is_waiting: Callable[[], bool]
    """Returns whether a request is in flight."""
    heard: Callable[[bytes], Any]
    """Parses a response; its result, never None, is that of `PipeCall.read`."""
    stalled: Callable[[], None]
    """Called when STALL_SECONDS after the first request nothing was heard."""


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

    def begin(
        self, method: Any, request: Any, timeout: float, ended: Callable[[], None]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        """Begin a call; the returned function waits for the response. Calls `ended` once, however the call ends."""
        ...

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        """Make a call that streams its responses; return them all."""
        ...

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> Responses:
        """Make a call that streams its responses; `ended` is called once, however it ends."""
        ...

    def pipe(self, method: Any, feed: Source, ended: Callable[[], None]) -> PipeCall:
        """Make a call that streams both ways; `ended` is called once, however it ends."""
        ...
