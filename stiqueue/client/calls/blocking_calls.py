"""Calls that block their thread; see `stiqueue.client.calls.kinds`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import nullcontext, suppress
from typing import Any
from weakref import WeakSet

import grpc

from stiqueue.client.calls import forking
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.gate import GATE, guard_again, guards_again
from stiqueue.client.calls.kinds import STALL_SECONDS, ChannelClosed, Source, WithoutResponse
from stiqueue.wire import greenlets

PARK_SECONDS = 5.0
"""How long a fork waits for the answers of a pipe; requests without one are sent again."""
CHECK_SECONDS = 0.2
"""How often a waiting fork checks whether the pipe has ended."""


WAKE_SECONDS = 1.0
"""The timeout of the call that wakes gRPC's thread before a fork; after as long the thread wakes by itself."""


class BlockingResponses:
    """See `Responses`."""

    def __init__(self, call: Any, ended: Callable[[], None]) -> None:
        self._call = call
        """None once cancelled: a call that lives until the interpreter ends can hold that up for ever."""
        self._metadata: Iterable[tuple[str, Any]] = ()
        self._over = over = [False]

        def end() -> None:  # without a reference to this object, which would live as long as the call
            over[0] = True
            ended()

        if not call.add_callback(end):
            end()  # it is over already

    @property
    def is_over(self) -> bool:
        return self._over[0] or self._call is None

    async def read(self) -> Any | None:
        call = self._call
        if call is None:
            raise ChannelClosed
        GATE.visit()
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
            GATE.visit()
            call.cancel()


class _Requests:
    """Iterates over the requests of a pipe, on a thread of gRPC."""

    def __init__(self, feed: Source) -> None:
        self._feed = feed
        self._bell = threading.Lock()
        """Locked until somebody rings."""
        self._was_sent = False
        self.was_heard = False
        self.is_parked = False
        """Whether to take no more requests."""
        self.answered = threading.Event()
        """While parked: set at each answer."""
        self.has_ended = False

    def __iter__(self) -> _Requests:
        return self

    def __next__(self) -> Any:
        take, pause, _, _, stalled = self._feed
        while not self.has_ended:
            request = None if self.is_parked else take()
            if request is not None:
                self._was_sent = True
                return request
            seconds = pause()
            is_silent = self._was_sent and not self.was_heard
            if is_silent:
                seconds = STALL_SECONDS if seconds is None else min(seconds, STALL_SECONDS)
            has_rung = self._bell.acquire(timeout=-1 if seconds is None else seconds)
            if is_silent and not has_rung and not self.was_heard:
                with GATE.let_in():
                    stalled()
        raise StopIteration

    def ring(self) -> None:
        with suppress(RuntimeError):  # it has been rung already
            self._bell.release()
        if self.is_parked:
            self.answered.set()


class BlockingPipe:
    """See `PipeCall`."""

    def __init__(self, method: Any, feed: Source, ended: Callable[[], None]) -> None:
        self._feed = feed
        self._requests = _Requests(feed)
        self.ring = self._requests.ring
        self._over = over = threading.Event()

        def end() -> None:
            over.set()
            ended()

        self._call: Any = method(self._requests)
        if not self._call.add_callback(end):
            end()  # it is over already
        GATE.park_before_fork(self)

    async def read(self) -> Any | None:
        call = self._call
        if call is None:
            raise ChannelClosed
        # No visit: a fork waits for the answers, see `park`.
        response = next(call, None)
        self._requests.was_heard = True
        return response

    def cancel(self) -> None:
        self._requests.has_ended = True
        self.ring()
        call, self._call = self._call, None  # see `BlockingResponses`
        if call is not None:
            GATE.visit()
            call.cancel()

    def park(self) -> None:
        """Send nothing more, wait for the answers in flight, and end. The next pipe continues."""
        self._requests.is_parked = True
        deadline = time.monotonic() + PARK_SECONDS
        while self._feed.is_waiting() and not self._over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._requests.answered.wait(min(left, CHECK_SECONDS))
            self._requests.answered.clear()
        self.cancel()
        self._over.wait(CHECK_SECONDS)


def _answer(response: Any) -> Any:
    """Return the response of a call; None is what grpcio 1.71 sometimes returns when the deadline meets the answer."""
    if response is None:
        raise WithoutResponse
    return response


class BlockingCalls:
    """See `Calls`. gRPC raises ValueError for a call on a closed channel."""

    def __init__(self) -> None:
        self._channels: WeakSet[grpc.Channel] = WeakSet()
        self._streams: WeakSet[BlockingResponses] = WeakSet()
        GATE.wake_before_fork(self)

    def wake(self) -> None:
        """Cause an event on the channel, if gRPC's thread waits for one because of a stream."""
        channels = list(self._channels)
        # Any answer will do. A channel without a stream has no such thread, and a new one would be in the way.
        if len(channels) == 1 and not all(stream.is_over for stream in list(self._streams)):
            with suppress(ValueError):  # it is closed
                wake: Any = channels[0].unary_unary("/stiqueue/Wake")
                wake.future(b"", timeout=WAKE_SECONDS)

    def open(self, endpoint: Endpoint) -> grpc.Channel:
        forking.check()
        greenlets.check("SQClient")
        opening = object()
        # Do not wait for a fork in progress: the caller holds a lock that gRPC's own threads take too. Once those have
        # stopped, the fork checks again for threads inside. Before the first channel there are no such threads, and
        # there is no second check.
        with GATE.let_in() if guards_again() else nullcontext():
            try:
                GATE.enter(opening)
                channel: grpc.Channel = endpoint.channel(grpc)
                guard_again()
                self._channels.add(channel)
            finally:
                GATE.leave(opening)
        return channel

    async def close(self, channel: grpc.Channel) -> None:
        GATE.visit()
        channel.close()

    async def unary(self, method: Any, request: Any, timeout: float) -> Any:
        call = object()
        try:
            return _answer(method(request, timeout=GATE.enter(call, timeout)))
        except ValueError as error:
            raise ChannelClosed from error
        finally:
            GATE.leave(call)

    def begin(
        self, method: Any, request: Any, timeout: float, ended: Callable[[], None]
    ) -> Callable[[], Coroutine[Any, Any, Any]]:
        GATE.visit()
        try:
            call = method.future(request, timeout=timeout)
        except ValueError as error:
            raise ChannelClosed from error
        call.add_done_callback(lambda _: ended())

        async def response() -> Any:
            return _answer(call.result())

        return response

    async def collect(self, method: Any, request: Any, timeout: float) -> list[Any]:
        GATE.visit()
        try:
            call = method(request, timeout=timeout)
        except ValueError as error:
            raise ChannelClosed from error
        collected = []
        while (response := next(call, None)) is not None:
            collected.append(response)
            GATE.visit()
        return collected

    def stream(self, method: Any, request: Any, ended: Callable[[], None]) -> BlockingResponses:
        GATE.visit()
        try:
            responses = BlockingResponses(method(request), ended)
        except ValueError as error:
            raise ChannelClosed from error
        self._streams.add(responses)
        return responses

    def pipe(self, method: Any, feed: Source, ended: Callable[[], None]) -> BlockingPipe:
        opening = object()
        try:
            GATE.enter(opening)  # a fork waits until the pipe is registered
            return BlockingPipe(method, feed, ended)
        except ValueError as error:
            raise ChannelClosed from error
        finally:
            GATE.leave(opening)
