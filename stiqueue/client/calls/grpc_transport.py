"""The five operations over gRPC: requests, retries, and the choice between pipe and calls."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Coroutine, Hashable, Sequence
from contextlib import suppress
from functools import partial
from itertools import count, repeat
from typing import Any, TypeVar

import grpc

from stiqueue import limits
from stiqueue.client.backoff import Backoff, Patience
from stiqueue.client.calls.connections import Connections
from stiqueue.client.calls.diagnosis import hint
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.joint import METHODS
from stiqueue.client.calls.kinds import Calls, ChannelClosed
from stiqueue.client.calls.parcel import Avoided
from stiqueue.client.calls.sender import Sender
from stiqueue.client.calls.streams import LOST, GrpcLook, GrpcStream, heard, shown
from stiqueue.client.calls.translation import (
    read_counts,
    read_receipt,
    write_batch,
    write_query,
    write_settlement,
    write_subscription,
)
from stiqueue.client.options import Options
from stiqueue.client.transport import Exchanged, Look, Stream
from stiqueue.client.waiting.concurrency import Concurrency
from stiqueue.errors import Closed, InvalidRequest, StiQueueError, Unavailable
from stiqueue.message import (
    NO_HEADERS,
    Batch,
    Counts,
    Outcome,
    PeekedMessage,
    PeekQuery,
    Receipt,
    Settlement,
    Subscription,
)
from stiqueue.queue_settings import QueueSettings, SettingsReport
from stiqueue.v1 import pipe_pb2 as pp
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.admin_pb2 import SettingsRequest
from stiqueue.wire.settings import read_report, read_settings, write_change
from stiqueue.wire.status import from_wire, handshake_failed, never_sent

ANY_SIZE = 1 << 62
"""No limit on the client's side: the server's decides."""

PIPED_BYTES = 1 << 16
"""A larger message travels in a call of its own, so that small ones need not wait for it."""
TOGETHER_BYTES = 1_000
"""A larger message gains nothing from travelling with others."""

T = TypeVar("T")


class GrpcTransport:
    """The five operations over gRPC; see `Transport`. Opens further connections as streams need them."""

    def __init__(
        self, endpoint: Endpoint, make_calls: Callable[[], Calls], options: Options, concurrency: Concurrency
    ) -> None:
        """Reach the server at `endpoint`.

        Makes the first channel in this thread. In another one that might happen during a `fork` of this one, and gRPC
        would not have prepared for that.

        Raises:
            InvalidRequest: a file of `tls` cannot be read.
            NotSupported: gRPC does not work in this process.
        """
        self._endpoint = endpoint
        self.reaches = str(endpoint)
        self._logger = options.logger
        self._connections = Connections(endpoint, make_calls())
        self._closed = concurrency.signal()
        self._request_ids = map("{}-{:x}".format, repeat(secrets.token_hex(8)), count(1))
        way = f"{endpoint}{endpoint.detour}"
        self._sender = Sender(concurrency, self._connections, self._closed, self._why, way, options.logger)
        self.ack_soon = self._sender.ack_soon
        self._connections.check()

    async def enq(self, batch: Batch, timeout: float) -> Receipt:
        limits.check_batch(batch, ANY_SIZE)
        if len(batch.bodies) > 1 or len(batch.bodies[0]) > PIPED_BYTES:
            return read_receipt(await self._call("Enq", self._request(batch), Patience.of(timeout)))
        request = pp.PipeRequest()
        _fill(write_batch, batch, request.enq)
        if not batch.request_id:
            request.enq.request_id = next(self._request_ids)
        kind: Hashable = None
        if len(batch.bodies[0]) <= TOGETHER_BYTES and not (batch.request_id or batch.ack_lease_ids or batch.unique_key):
            if batch.headers is NO_HEADERS:
                kind = batch[0], *batch[3:6], batch.key
            elif limits.TRACE_HEADERS.isdisjoint(batch.headers):  # a trace is unique to its message
                kind = (batch[0], *batch[3:6], batch.key, *batch.headers.items())
        response, place = await self._ask(request, kind, timeout)
        first_id, _, duplicate, durability = read_receipt(response)
        return Receipt(first_id + place, 1, duplicate, durability)

    async def _ask(self, request: pp.PipeRequest, kind: Hashable, timeout: float) -> tuple[Any, int]:
        """Send `request` over the pipe, or without one in a call."""
        since, lost = time.monotonic(), False
        if not self._sender.is_avoided:
            try:
                return await self._sender.ask(request, kind, timeout)
            except Avoided as avoided:
                lost = avoided.was_sent
        name = request.WhichOneof("request") or ""
        return await self._call(METHODS[name], getattr(request, name), Patience(timeout, since), lost=lost), 0

    def _request(self, batch: Batch) -> pb.EnqRequest:
        """Return the request, with a request id that makes retries safe."""
        request = pb.EnqRequest()
        _fill(write_batch, self.named(batch), request)
        return request

    def named(self, batch: Batch) -> Batch:
        return batch if batch.request_id else batch._replace(request_id=next(self._request_ids))

    def begin_enq(self, batch: Batch, timeout: float) -> Callable[[], Coroutine[Any, Any, Receipt]]:
        limits.check_batch(batch, ANY_SIZE)
        request = self._request(batch)
        try:
            under_way = self._connections.begin("Enq", request, timeout)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

        async def receipt() -> Receipt:
            patience = Patience.of(timeout)
            return read_receipt(await self._call("Enq", request, patience, begun=under_way))

        return receipt

    async def settle(self, settlement: Settlement, timeout: float) -> list[str]:
        limits.check_settlement(settlement)
        request = pp.PipeRequest()
        _fill(write_settlement, settlement, request.ack)
        single = settlement.outcome is Outcome.ACK and len(settlement.lease_ids) == 1
        response, _ = await self._ask(request, (settlement.close_stream,) if single else None, timeout)
        if single:
            return list(settlement.lease_ids) if settlement.lease_ids[0] in response.stale_lease_ids else []
        return list(response.stale_lease_ids)

    async def exchange(self, lease_id: str, timeout: float) -> Exchanged:
        request = pp.PipeRequest()
        request.ack.lease_ids.append(lease_id)
        request.ack.take_next = True
        if not self._sender.is_avoided:
            with suppress(Avoided):
                response, _ = await self._sender.ask(request, None, timeout, tries=1)
                return Exchanged(not response.stale_lease_ids, response.messages)
        answer = self._connections.unary("Ack", request.ack, timeout)
        response = await heard(answer, self._endpoint)
        return Exchanged(not response.stale_lease_ids, response.messages)

    async def counts(self, queues: Sequence[str], timeout: float) -> list[Counts]:
        request = pp.PipeRequest()
        request.cnt.queues.extend(queues)
        request.cnt.SetInParent()
        response, _ = await self._ask(request, None, timeout)
        return read_counts(response)

    async def peek(self, query: PeekQuery, timeout: float) -> list[PeekedMessage]:
        limits.check_peek(query)
        request = _encoded(write_query, query)
        responses = await self._call("Peek", request, Patience.of(timeout), self._connections.collect)
        return shown(responses, query.queue)

    def look(self, query: PeekQuery) -> Look:
        limits.check_peek(query)
        request = _encoded(write_query, query)
        try:
            responses = self._connections.stream("Peek", request)
            return GrpcLook(responses, self._endpoint, query.queue)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

    def subscribe(self, subscription: Subscription) -> Stream:
        limits.check_subscription(subscription)
        request = _encoded(write_subscription, subscription)
        try:
            return GrpcStream(self._connections.stream("Deq", request), self._endpoint, self.settle)
        except ChannelClosed as error:
            raise Closed("the client was closed") from error

    async def configure(self, change: QueueSettings, reset: Sequence[str], timeout: float) -> QueueSettings:
        limits.check_settings(change, reset)
        request = _encoded(partial(write_change, reset=reset), change)
        return read_settings((await self._call("Configure", request, Patience.of(timeout))).settings)

    async def settings(self, queue: str, timeout: float) -> SettingsReport:
        return read_report(await self._call("Settings", SettingsRequest(queue=queue), Patience.of(timeout)))

    async def close(self) -> None:
        """Close all connections; their calls and streams end."""
        self._closed.set()
        await self._sender.close()
        await self._connections.close()

    give_up = close

    async def _call(
        self,
        method: str,
        request: Any,
        patience: Patience,
        make: Callable[[str, Any, float], Coroutine[Any, Any, Any]] | None = None,
        begun: Callable[[], Coroutine[Any, Any, Any]] | None = None,
        lost: bool = False,
    ) -> Any:
        """Call `method`, and repeat the same request while the server is away.

        Args:
            method: the name of the RPC.
            request: the request.
            patience: the time limit.
            make: makes the call; default: a unary call.
            begun: waits for a first try that is in flight.
            lost: whether an earlier try has an unknown outcome.
        """
        make = make or self._connections.unary
        backoff = Backoff(patience.seconds, self._logger)
        while True:
            first, begun = begun, None
            try:
                return await (first() if first else make(method, request, max(0.001, patience.left)))
            except ChannelClosed as error:
                raise Closed("the client was closed") from error
            except grpc.RpcError as error:
                failure = self._why(error, patience.seconds)
                if not isinstance(failure, Unavailable):
                    failure.is_refusal &= not lost
                    raise failure from error
                cause = error
                lost = lost or not never_sent(error)
            try:
                await backoff.pause(failure, self._closed, patience.since)
            except Unavailable:
                raise failure from cause
            self._logger.debug("trying again: %s", failure)

    def _why(self, call: Any, timeout: float) -> StiQueueError:
        """Return the error of a failed call; `Unavailable` if a retry may help."""
        if self._closed.is_set():
            return Closed("the client was closed")
        if call.code() in LOST and not handshake_failed(call):
            details = call.details() or ""
            way = f"{self._endpoint}{self._endpoint.detour}"
            return self._endpoint.mismatch(details) or Unavailable(
                f"no answer from {way} within {timeout:g} s: {details}{hint(details)}"
            )
        return from_wire(call, self._endpoint.detour)


def _fill(write: Callable[[Any, Any], None], value: Any, request: Any) -> None:
    """Translate into `request`; a value that the protocol cannot hold is the caller's mistake."""
    try:
        write(value, request)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(str(error)) from error


def _encoded(write: Callable[[Any], T], value: Any) -> T:
    """Translate a request; a value that the protocol cannot hold is the caller's mistake."""
    try:
        return write(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(str(error)) from error
