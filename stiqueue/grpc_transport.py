"""The five operations over gRPC: requests, retries, and calls of many threads or tasks that travel together."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count, repeat
from typing import Any, TypeVar

import grpc

from stiqueue import limits
from stiqueue.acks import AckSender
from stiqueue.backoff import Backoff
from stiqueue.calls import Calls, ChannelClosed, Responses
from stiqueue.coalescing import Coalescer
from stiqueue.concurrency import Concurrency
from stiqueue.connections import Connections
from stiqueue.endpoint import Endpoint
from stiqueue.errors import Closed, InvalidRequest, StiQueueError, Unavailable
from stiqueue.message import (
    Batch,
    Counts,
    Delivered,
    Outcome,
    PeekedMessage,
    PeekQuery,
    Receipt,
    Settlement,
    State,
    Subscription,
)
from stiqueue.options import Options
from stiqueue.status import from_wire, handshake_failed
from stiqueue.transport import Exchanged, Look, Stream
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.wire import (
    read_counts,
    read_receipt,
    was_connected,
    write_batch,
    write_query,
    write_settlement,
    write_subscription,
)

ANY_SIZE = 1 << 62
"""The limit of a message as far as a client knows: the server's own decides."""

BACKGROUND_SECONDS = 30.0
"""How long an ack in the background may take."""
MOST_TOGETHER = 1_000
"""Most calls of different threads or tasks in one request."""
TOGETHER_BYTES = 1_000
"""A message above this size gains nothing from travelling with others."""

_RETRIED = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
"""A CANCELLED that we did not ask for is a server under a burst of calls."""
_LOST = (*_RETRIED, grpc.StatusCode.DEADLINE_EXCEEDED)

T = TypeVar("T")


class GrpcStream:
    """A `Deq` call; see `Stream`."""

    def __init__(self, responses: Responses) -> None:
        self._responses = responses
        self.cancel = responses.cancel

    async def next(self) -> Sequence[Delivered] | None:
        response: pb.DeqResponse | None = await _heard(self._responses.read())
        return None if response is None else response.messages

    async def connected(self) -> bool:
        return was_connected(await self._responses.initial_metadata())


class GrpcLook:
    """A `Peek` call; see `Look`."""

    def __init__(self, responses: Responses, queue: str) -> None:
        self._responses = responses
        self._queue = queue
        self.cancel = responses.cancel

    async def next(self) -> list[PeekedMessage] | None:
        response: pb.PeekResponse | None = await _heard(self._responses.read())
        return None if response is None else _shown([response], self._queue)


class GrpcTransport:
    """The five operations over gRPC; see `Transport`. Connects on first use, further connections as streams need."""

    def __init__(
        self, endpoint: Endpoint, make_calls: Callable[[], Calls], options: Options, concurrency: Concurrency
    ) -> None:
        """Reach the server at `endpoint`."""
        self._endpoint = endpoint
        self._logger = options.logger
        self._calls = make_calls()
        self._connections = Connections(endpoint, self._calls)
        self._closed = concurrency.signal()
        self._request_ids = map("{}-{:x}".format, repeat(secrets.token_hex(8)), count(1))
        self._enq_together = Coalescer(concurrency, self._enq_each, StiQueueError, MOST_TOGETHER)
        self.ack_soon = AckSender(self._begin_ack).ack
        self._ack_together = Coalescer(concurrency, self._ack_each, StiQueueError, MOST_TOGETHER)

    async def enq(self, batch: Batch, timeout: float) -> Receipt:
        limits.check_batch(batch, ANY_SIZE)
        if batch.request_id or batch.ack_lease_ids or len(batch.bodies) > 1 or len(batch.bodies[0]) > TOGETHER_BYTES:
            return await self._enq_alone(batch, timeout)
        if not limits.TRACE_HEADERS.isdisjoint(batch.headers):  # which no other message has
            return await self._enq_alone(batch, timeout)
        kind = (batch.queue, batch.priority, batch.delay, batch.ttl, *batch.headers.items(), timeout)
        return await self._enq_together((batch, timeout), kind)

    async def _enq_alone(self, batch: Batch, timeout: float) -> Receipt:
        return read_receipt(await self._call(self._connections.stub().Enq, self._request(batch), timeout))

    async def _enq_each(self, each: list[tuple[Batch, float]]) -> list[Receipt]:
        """Enqueue single messages that differ only in their bodies, in one request."""
        (first, timeout), *others = each
        if not others:
            return [await self._enq_alone(first, timeout)]
        joint = first._replace(bodies=[batch.bodies[0] for batch, _ in each])
        first_id, number, duplicate, durability = await self._enq_alone(joint, timeout)
        return [Receipt(each_id, 1, duplicate, durability) for each_id in range(first_id, first_id + number)]

    def _request(self, batch: Batch) -> pb.EnqRequest:
        """Return the request, with an id that makes its retries safe."""
        request = _encoded(write_batch, batch)
        if not batch.request_id:
            request.request_id = next(self._request_ids)
        return request

    def enq_soon(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
        limits.check_batch(batch, ANY_SIZE)
        request = self._request(batch)
        try:
            under_way = self._calls.begin(self._connections.stub().Enq, request, timeout)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

        async def receipt() -> Receipt:
            try:
                return read_receipt(await under_way())
            except ChannelClosed as error:
                raise Closed("the client was closed") from error
            except grpc.RpcError as error:
                call: Any = error
                if call.code() not in _RETRIED:
                    raise from_wire(call) from error
            return read_receipt(await self._call(self._connections.stub().Enq, request, timeout))

        return receipt

    async def settle(self, settlement: Settlement, timeout: float) -> list[str]:
        limits.check_settlement(settlement)
        if settlement.outcome is not Outcome.ACK or len(settlement.lease_ids) > 1:
            return await self._settle_alone(settlement, timeout)
        return await self._ack_together((settlement, timeout), (settlement.close_stream, timeout))

    async def _settle_alone(self, settlement: Settlement, timeout: float) -> list[str]:
        request = _encoded(write_settlement, settlement)
        return list((await self._call(self._connections.stub().Ack, request, timeout)).stale_lease_ids)

    async def _ack_each(self, each: list[tuple[Settlement, float]]) -> list[list[str]]:
        """Ack single leases in one request."""
        (first, timeout), *_ = each
        lease_ids = [settlement.lease_ids[0] for settlement, _ in each]
        stale = set(await self._settle_alone(first._replace(lease_ids=lease_ids), timeout))
        return [[lease_id] if lease_id in stale else [] for lease_id in lease_ids]

    def _begin_ack(self, lease_ids: list[str], done: Callable[[list[str] | StiQueueError], None]) -> None:
        def finished(response: Any, failed: Any) -> None:
            if response is not None:
                done(list(response.stale_lease_ids))
            else:
                done(Closed("the client was closed") if failed is None else self._why(failed, BACKGROUND_SECONDS))

        request = pb.AckRequest(lease_ids=lease_ids)
        try:
            self._calls.background(self._connections.stub().Ack, request, BACKGROUND_SECONDS, finished)
        except (Closed, ChannelClosed):
            finished(None, None)

    async def exchange(self, lease_id: str) -> Exchanged:
        request = pb.AckRequest(lease_ids=[lease_id], take_next=True)
        response = await _heard(self._calls.unary(self._connections.stub().Ack, request, BACKGROUND_SECONDS))
        return Exchanged(not response.stale_lease_ids, response.messages)

    async def counts(self, queues: Sequence[str], timeout: float) -> list[Counts]:
        return read_counts(await self._call(self._connections.stub().Cnt, pb.CntRequest(queues=queues), timeout))

    async def peek(self, query: PeekQuery, timeout: float) -> list[PeekedMessage]:
        limits.check_peek(query)
        request = _encoded(write_query, query)
        responses = await self._call(self._connections.stub().Peek, request, timeout, self._calls.collect)
        return _shown(responses, query.queue)

    def look(self, query: PeekQuery) -> Look:
        limits.check_peek(query)
        request = _encoded(write_query, query)
        try:
            return GrpcLook(self._calls.stream(self._connections.stub().Peek, request, _nothing), query.queue)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

    def subscribe(self, subscription: Subscription) -> Stream:
        limits.check_subscription(subscription)
        request = _encoded(write_subscription, subscription)
        try:
            return GrpcStream(self._connections.deq(request))
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

    async def close(self) -> None:
        """Close all connections; calls and streams under way end."""
        self._closed.set()
        await self._connections.close()

    async def _call(
        self,
        method: Any,
        request: Any,
        timeout: float,
        make: Callable[[Any, Any, float], Coroutine[Any, Any, Any]] | None = None,
    ) -> Any:
        """Call `method`, again and again while the server is away, for up to `timeout` seconds in all."""
        make = make or self._calls.unary
        started = time.monotonic()
        backoff = Backoff(timeout, self._logger)
        while True:
            left = max(0.001, started + timeout - time.monotonic())
            try:
                return await make(method, request, left)
            except ChannelClosed as error:
                raise Closed("the client was closed") from error
            except grpc.RpcError as error:
                failure = self._why(error, timeout)
                if not isinstance(failure, Unavailable):
                    raise failure from error
                cause = error
            try:
                await backoff.pause(failure, self._closed, started)
            except Unavailable:
                raise failure from cause
            self._logger.debug("trying again: %s", failure)

    def _why(self, call: Any, timeout: float) -> StiQueueError:
        """Return our error for a failed call; `Unavailable` when it is worth trying again."""
        if self._closed.is_set():
            return Closed("the client was closed")
        if handshake_failed(call):
            return from_wire(call)
        if call.code() in _LOST:
            return Unavailable(f"no answer from {self._endpoint} within {timeout:g} s: {call.details()}")
        return from_wire(call)


def _encoded(write: Callable[[Any], T], value: Any) -> T:
    """Translate a request; what the protocol's types cannot hold is a mistake of the caller."""
    try:
        return write(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(str(error)) from error


async def _heard(response: Coroutine[Any, Any, Any]) -> Any:
    """Return what is read of a stream, or answered for one; failures become errors of ours."""
    try:
        return await response
    except ChannelClosed as error:
        raise Unavailable("the subscription was given up") from error
    except grpc.RpcError as error:
        call: Any = error
        if call.code() in _LOST and not handshake_failed(call):
            raise Unavailable(f"connection lost: {call.details()}") from error
        raise from_wire(call) from error


def _shown(responses: Iterable[pb.PeekResponse], queue: str) -> list[PeekedMessage]:
    return [
        PeekedMessage.show(
            peeked.message,
            queue,
            State(peeked.state),
            peeked.consumer,
            peeked.state_age_ms,
            peeked.ready_time_ms,
            peeked.expire_time_ms,
        )
        for response in responses
        for peeked in response.messages
    ]


def _nothing() -> None:
    """Do nothing when a stream ends."""
