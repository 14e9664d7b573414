"""Sends the single requests of all threads or tasks of a client over one pipe."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any

import grpc

from stiqueue.client.backoff import Backoff
from stiqueue.client.calls.connections import Connections
from stiqueue.client.calls.diagnosis import hint
from stiqueue.client.calls.joint import JointCalls
from stiqueue.client.calls.kinds import ChannelClosed, PipeCall, Source
from stiqueue.client.calls.outbox import ACKS, Outbox
from stiqueue.client.calls.parcel import Avoided, Item, Outcome, Parcel, failed, tell
from stiqueue.client.transport import Acked
from stiqueue.client.waiting.concurrency import Companion, Concurrency, Signal, Turn
from stiqueue.errors import AccessDenied, Closed, StiQueueError, Unauthenticated, Unavailable
from stiqueue.v1 import pipe_pb2 as pb
from stiqueue.wire.status import from_pipe

AVOID_SECONDS = 60.0
"""How long the client makes calls instead after a pipe did not work: behind a proxy that buffers streams, say."""
LEAST_SECONDS = 0.1
"""The minimum wait of a flow, even with a timeout of 0: only a connection attempt reveals the error."""
JOIN_SECONDS = 5.0
"""How long `close` waits for the companion."""


class _Reply:
    """The outcome of an item; its flow waits for the turn."""

    __slots__ = ("error", "place", "response", "turn")

    def __init__(self, turn: Turn) -> None:
        self.turn = turn
        self.response: Any = None
        self.place = 0
        self.error: Exception | None = None

    def __call__(self, response: Any, place: int, error: Exception | None) -> None:
        self.response, self.place, self.error = response, place, error
        self.turn.give()


class Sender:
    """Sends requests over a pipe, which it opens on first use and reopens after a failure. Thread-safe.

    A companion (a thread or a task) reads the answers. Each flow waits for its own, within its own deadline. Requests
    without an answer when the pipe is lost go over the next one, unchanged.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        connections: Connections,
        closed: Signal,
        explain: Callable[[Any, float], StiQueueError],
        way: str,
        logger: logging.Logger,
    ) -> None:
        """Make one; nothing is opened.

        Args:
            concurrency: how flows wait.
            connections: where to.
            closed: set when the client is closed.
            explain: returns the error of a failed call that had so many seconds; `Unavailable` if it may work later.
            way: the server and how it is reached, for errors.
            logger: warned when the server is away for long.
        """
        self._concurrency = concurrency
        self._connections = connections
        self._closed = closed
        self._explain = explain
        self._way = way
        self._logger = logger
        self._outbox = Outbox()
        self._joint = JointCalls(connections, closed, explain, logger)
        self._lock = threading.Lock()
        """Protects `_companion` and, for changes, `_call`."""
        self._companion: Companion | None = None
        self._call: PipeCall | None = None
        self._avoided_until = 0.0
        """Until when, in monotonic seconds, the client makes calls instead."""

    @property
    def is_avoided(self) -> bool:
        """Whether flows make calls of their requests for now."""
        return self._avoided_until > 0.0 and time.monotonic() < self._avoided_until

    async def ask(
        self, request: pb.PipeRequest, kind: Hashable, seconds: float, tries: float = math.inf
    ) -> tuple[Any, int]:
        """Send `request`; return its response, and its place among the items that share that.

        Args:
            request: has a request id if it enqueues.
            kind: requests of an equal kind may travel together; None: alone.
            seconds: how long to wait for the answer.
            tries: how often it may be sent while its outcome is unknown.

        Raises:
            Avoided: make a call of it, unchanged.
            Unavailable: there was no answer in time; the outcome is unknown.
        """
        reply = _Reply(self._concurrency.turn())
        item = Item(request, kind, reply, tries)
        self._outbox.put(item)
        self._ring()
        try:
            await reply.turn.come(max(seconds, LEAST_SECONDS))
        finally:
            lost = self._give_up(item) if item.answered is not None else ""
        if reply.error is not None:
            raise reply.error
        if reply.response is None:
            raise Unavailable(f"no answer from {self._way} within {seconds:g} s{lost and f': {lost}'}")
        return reply.response, reply.place

    def _give_up(self, item: Item) -> str:
        """Stop waiting for `item`; return why it had no answer, if known."""
        lost = self._outbox.give_up(item)
        call = self._call
        if call is not None:
            call.ring()  # sends the items that gathered behind it
        return lost

    def ack_soon(self, lease_id: str, done: Acked) -> None:
        """Ack a lease in the background, together with others; see `Acked`. Never blocks."""
        if self._outbox.put_ack(lease_id, done):
            self._ring()

    def _ring(self) -> None:
        """Wake the companion: there may be something to send."""
        call = self._call
        if call is not None:
            call.ring()
        else:
            self._start()

    def _start(self) -> None:
        """Start the companion, unless only flows wait, and make calls of their requests."""
        with self._lock:
            is_closed, is_avoided = self._closed.is_set(), self.is_avoided
            if self._companion is None and not is_closed and (self._outbox.has_acks() or not is_avoided):
                self._companion = self._concurrency.accompany(self._carry(), "stiqueue-pipe")
                return
        if is_closed:
            tell(failed(self._outbox.take_all(), Closed("the client was closed")))
        elif is_avoided:  # a companion that makes calls has the rest
            _send_away(self._outbox.take_items())

    async def close(self) -> None:
        """End the pipe; its requests fail. `closed` is set before."""
        with self._lock:
            companion, call = self._companion, self._call
        if call is not None:
            call.cancel()
        if companion is not None:
            await companion.join(JOIN_SECONDS)
        tell(failed(self._outbox.take_all(), Closed("the client was closed")))

    # -- the companion ------------------------------------------------------------------------------------------------

    async def _carry(self) -> None:
        """Keep a pipe open as long as it works or somebody waits for an answer."""
        backoff = Backoff(math.inf, self._logger)
        try:
            while True:
                if self.is_avoided and not self._closed.is_set():
                    await self._joint.make(_divert(self._outbox.take_all()))
                    if self._has_ended(self._outbox.has_unsent):
                        return
                    continue
                began = time.monotonic()
                was_heard, error = await self._read_one()
                if self._closed.is_set():
                    with self._lock:
                        self._companion = self._call = None
                    return
                if self._is_unsuitable(was_heard, error):
                    if error is None or error.code() is not grpc.StatusCode.UNIMPLEMENTED:  # it did nothing
                        tell(self._outbox.lose(Unavailable("connection lost: no answer over the pipe")))
                    with self._lock:
                        self._call = None
                        if self.is_avoided:
                            continue
                        self._companion = None  # the next request tries a pipe again
                        parcels = self._outbox.take_all()  # none of those that the next companion has
                    await self._joint.make(_divert(parcels))
                    return
                details = "the server closed the pipe" if error is None else error.details() or ""
                why = f"{details}{hint(details)}"
                tell(self._outbox.lose(Unavailable(why)))
                self._call = None
                if self._has_ended(self._outbox.is_awaited):
                    return
                if was_heard:
                    backoff.reset()
                with suppress(Closed):
                    await backoff.pause(Unavailable(why), self._closed, time.monotonic() if was_heard else began)
        except BaseException:  # the event loop ends and cancels the task
            with self._lock:
                self._companion = self._call = None
                outcomes = self._outbox.lose(Unavailable("the pipe was closed"))  # not that of the next companion
            tell(outcomes)
            raise

    def _has_ended(self, goes_on: Callable[[], bool]) -> bool:
        """Note that the companion ends, unless `goes_on`; return whether it ends. The next request starts another."""
        with self._lock:
            if goes_on():
                return False
            self._companion = None
            return True

    async def _read_one(self) -> tuple[bool, Any | None]:
        """Open a pipe and read it to its end; return whether anything was heard, and how it failed."""
        call: PipeCall | None = None
        was_heard = False
        try:
            call = self._connections.pipe(self._feed())
            self._call = call
            call.ring()  # sends the items put before there was a call to ring
            while (outcomes := await call.read()) is not None:
                was_heard = True
                if outcomes:
                    tell(outcomes)
                if self._outbox.has_unsent():
                    call.ring()
        except (Closed, ChannelClosed):
            return was_heard, None
        except grpc.RpcError as error:
            error.__traceback__ = None  # the call is this error: a reference cycle
            return was_heard, error
        finally:
            if call is not None:
                call.cancel()
        return was_heard, None

    def _feed(self) -> Source:
        outbox = self._outbox
        return Source(partial(outbox.take, outbox.open()), outbox.pause, outbox.is_waiting, self._heard, self._stalled)

    def _heard(self, data: bytes) -> list[Outcome]:
        """Parse a response and return the outcomes, which the companion tells: here, gRPC holds a lock."""
        response = pb.PipeResponse.FromString(data)
        failure = from_pipe(response.error) if response.HasField("error") else None
        return self._outbox.answer(response, failure)

    def _is_unsuitable(self, was_heard: bool, error: Any | None) -> bool:
        """Whether to make calls instead, which work or say why not."""
        if self.is_avoided:
            return True
        if was_heard or error is None:
            return False
        failure = self._explain(error, 0.0)
        if isinstance(failure, Unavailable):
            return False
        if not isinstance(failure, (AccessDenied, Unauthenticated)):  # these may change at any time
            self._avoided_until = time.monotonic() + AVOID_SECONDS
        return True

    def _stalled(self) -> None:
        """Give the pipe up: no answer came since the first request, so something on the way holds it back."""
        self._avoided_until = time.monotonic() + AVOID_SECONDS
        call = self._call
        if call is not None:
            call.cancel()


def _divert(parcels: list[Parcel]) -> list[Parcel]:
    """Let flows make calls of their requests; return the parcels of several items and those of background acks."""
    _send_away([parcel for parcel in parcels if len(parcel.items) == 1 and parcel.kind is not ACKS])
    return [parcel for parcel in parcels if len(parcel.items) > 1 or parcel.kind is ACKS]


def _send_away(parcels: list[Parcel]) -> None:
    """Let flows make calls of their requests, which travel alone."""
    tell([(parcel.items[0], None, 0, Avoided(parcel.was_sent)) for parcel in parcels])
