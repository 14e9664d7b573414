"""A pipe that is read by a thread; see `stiqueue.client.calls.kinds.PipeCall`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc

from stiqueue.client.calls.direct import DirectCall
from stiqueue.client.calls.gate import GATE
from stiqueue.client.calls.kinds import PIPE, STALL_SECONDS, ChannelClosed, Metadata, Source, public_pipe
from stiqueue.client.calls.parcel import Item

PARK_SECONDS = 5.0
"""How long a fork waits for the answers of a pipe; requests without one are sent again."""
CHECK_SECONDS = 0.2
"""How often a waiting fork checks whether the pipe has ended."""
JOIN_SECONDS = 1.0
"""How long the end of a pipe waits for the thread that sends."""


class _Requests:
    """Iterates over the requests of a pipe, on a thread of its own."""

    def __init__(self, feed: Source) -> None:
        self.take = feed.take
        """Takes the next request; None: there is none for now."""
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
        pause, stalled = self._feed.pause, self._feed.stalled
        while not self.has_ended:
            request = None if self.is_parked else self.take()
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


class _PublicCall:
    """The call of a pipe as gRPC makes it for everybody; takes requests on a thread of gRPC."""

    def __init__(
        self, channel: Any, metadata: Metadata, requests: _Requests, feed: Source, ended: Callable[[], None]
    ) -> None:
        self.go_on = requests.ring
        self._call = public_pipe(channel, metadata, requests, feed.heard)
        """None once cancelled: a call that lives until the interpreter ends can hold that up for ever."""
        if not self._call.add_callback(ended):
            ended()  # it is over already

    def send_now(self, item: Item) -> bool:
        return False

    def receive(self) -> Any | None:
        call = self._call
        if call is None:
            raise ChannelClosed
        return next(call, None)

    def cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            GATE.visit()
            call.cancel()


class _PrivateCall:
    """The call of a pipe on gRPC's own objects. Flows send by themselves, or leave it to a thread of ours.

    That thread has the room in which a request is sent before it takes one, so that none overtakes it.
    """

    def __init__(
        self, channel: Any, metadata: Metadata, requests: _Requests, feed: Source, ended: Callable[[], None]
    ) -> None:
        self._requests = requests
        self._feed = feed
        self._ended: Callable[[], None] | None = ended
        self._call = DirectCall(channel, PIPE, metadata)
        requests.take = self._take
        self._writer = threading.Thread(target=self._write, name="stiqueue-pipe-writer", daemon=True)
        self._writer.start()

    def _take(self) -> Any | None:
        self._call.reserve(wait=True)
        request = self._feed.take()
        if request is None:
            self._call.release()
        return request

    def _write(self) -> None:
        for request in self._requests:
            if not self._call.send(request.SerializeToString()):
                return

    def send_now(self, item: Item) -> bool:
        if not self._requests.was_heard:  # the thread notices if nothing is heard of its first request
            return False
        inside = object()
        try:
            GATE.enter(inside)
            if self._requests.is_parked or not self._call.reserve(wait=False):
                return False
            request = self._feed.take_now(item)
            if request is None:
                self._call.release()
                return False
            self._call.send(request.SerializeToString())
            return True
        except BaseException:  # of a signal handler: this may have kept the room, and others wait for it
            self._call.cancel(grpc.StatusCode.CANCELLED, "interrupted")
            raise
        finally:
            GATE.leave(inside)

    def go_on(self) -> None:
        """Send one request without waking the thread of ours, which has the rest."""
        if not self._requests.is_parked and self._call.reserve(wait=False):
            request = self._feed.take()
            if request is None:
                self._call.release()
            elif self._call.send(request.SerializeToString()) and not self._feed.has_unsent():
                return
        self._requests.ring()

    def receive(self) -> Any | None:
        try:
            while (data := self._call.receive()) is not None:
                try:
                    return self._feed.heard(data)
                except Exception:
                    self._call.cancel(grpc.StatusCode.INTERNAL, "a response cannot be parsed")
        except grpc.RpcError:
            self._end()
            raise
        self._end()
        return None

    def _end(self) -> None:
        self._requests.has_ended = True
        self._requests.ring()
        self._writer.join(JOIN_SECONDS)
        ended, self._ended = self._ended, None
        if ended is not None:
            ended()

    def cancel(self) -> None:
        GATE.visit()
        self._call.cancel(grpc.StatusCode.CANCELLED, "the pipe was closed")


class BlockingPipe:
    """See `PipeCall`."""

    def __init__(self, channel: Any, metadata: Metadata, feed: Source, ended: Callable[[], None]) -> None:
        self._feed = feed
        self._requests = requests = _Requests(feed)
        self.ring = requests.ring
        self._over = over = threading.Event()

        def end() -> None:
            over.set()
            ended()

        self._call: _PrivateCall | _PublicCall
        try:
            self._call = _PrivateCall(channel, metadata, requests, feed, end)
        except NotImplementedError:
            self._call = _PublicCall(channel, metadata, requests, feed, end)
        self.send_now, self.go_on = self._call.send_now, self._call.go_on
        GATE.park_before_fork(self)

    async def read(self) -> Any | None:
        # No visit of the gate: a fork waits for the answers, see `park`.
        response = self._call.receive()
        self._requests.was_heard = True
        return response

    def cancel(self) -> None:
        self._requests.has_ended = True
        self.ring()
        self._call.cancel()

    def park(self) -> None:
        """Send nothing more, wait for the answers in flight, and end. The next pipe continues."""
        self._requests.is_parked = True
        deadline = time.monotonic() + PARK_SECONDS
        while self._feed.is_waiting() and not self._over.is_set() and (left := deadline - time.monotonic()) > 0:
            self._requests.answered.wait(min(left, CHECK_SECONDS))
            self._requests.answered.clear()
        self.cancel()
        self._over.wait(CHECK_SECONDS)
