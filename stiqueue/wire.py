"""Between the protocol's messages and our values: translation only, no checks and no rules."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from stiqueue.entry import Leased, Peeked
from stiqueue.errors import InvalidRequest
from stiqueue.limits import DEFAULT_PREFETCH_BYTES, queue_name
from stiqueue.message import (
    NO_HEADERS,
    Batch,
    Counts,
    Durability,
    Outcome,
    PeekQuery,
    Receipt,
    Settlement,
    State,
    Subscription,
)
from stiqueue.v1 import queue_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["QueueService"].full_name
VERSION_KEY = "stiqueue-version"
"""The initial metadata that a server sends as soon as it has accepted a `Deq`, before there is any message."""

AUTHORIZATION_KEY = "authorization"
"""The metadata with the token of a call, as for HTTP: ``Bearer`` and the token."""


def seconds(duration: Duration) -> float:
    """Return a Duration in seconds."""
    return duration.seconds + duration.nanos / 1e9


def duration(value: float) -> Duration:
    """Return `value` seconds as a Duration."""
    whole = int(value // 1)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


# -- requests, as the server reads them -------------------------------------------------------------------------------


def read_batch(request: pb.EnqRequest) -> Batch:
    return Batch(
        queue_name(request.queue),
        list(request.bodies),
        request.request_id,
        request.priority,
        seconds(request.delay) if request.HasField("delay") else 0.0,
        seconds(request.ttl) if request.HasField("ttl") else None,
        dict(request.headers) if request.headers else NO_HEADERS,
        list(request.ack_lease_ids),
    )


def read_subscription(request: pb.DeqRequest, ack_timeout: float | None, no_ack: bool) -> Subscription:
    """Read with the server's own `ack_timeout` where the request has none, and its own `no_ack` if that is set."""
    asked = seconds(request.ack_timeout)
    prefetch = request.prefetch or 1
    most = request.max_messages
    if no_ack and not request.no_ack:
        # This client reckons with a credit, and there is nothing to settle that would renew it.
        most = min(most or prefetch, prefetch)
    return Subscription(
        queue_name(request.queue),
        prefetch,
        request.prefetch_bytes or DEFAULT_PREFETCH_BYTES,
        most,
        request.no_ack or no_ack,
        seconds(request.wait) if request.HasField("wait") else None,
        asked or ack_timeout,
        request.consumer,
    )


def read_settlement(request: pb.AckRequest) -> Settlement:
    outcome = request.outcome or pb.OUTCOME_ACK
    if outcome not in _OUTCOMES:
        raise InvalidRequest(f"outcome: {outcome} is unknown", "BAD_OUTCOME")
    return Settlement(
        list(request.lease_ids), Outcome(outcome), seconds(request.delay), request.reason, request.close_stream
    )


def read_query(request: pb.PeekRequest) -> PeekQuery:
    state = request.state or pb.MESSAGE_STATE_READY
    if state not in _STATES:
        raise InvalidRequest(f"state: {state} is unknown", "BAD_STATE")
    return PeekQuery(queue_name(request.queue), request.limit, request.after_id, State(state))


_OUTCOMES = frozenset(int(each) for each in Outcome)
_STATES = frozenset(int(each) for each in State)
_DURABILITIES: dict[int, Durability] = {int(each): each for each in Durability}
"""By number, which is faster than asking the enumeration, and knows what to do with what is not there."""

# -- answers, as the server writes them -------------------------------------------------------------------------------


def write_receipt(receipt: Receipt) -> pb.EnqResponse:
    first_id, number, duplicate, durability = receipt
    reached = pb.Durability.ValueType(durability)
    return pb.EnqResponse(first_id=first_id, count=number, duplicate=duplicate, durability=reached)


def write_messages(messages: Iterable[Leased]) -> pb.DeqResponse:
    response = pb.DeqResponse()
    _add_messages(response, messages)
    return response


def write_exchanged(lease_id: str, messages: Iterable[Leased] | None) -> pb.AckResponse:
    """Write what `Engine.exchange` of a lease has returned."""
    response = pb.AckResponse(stale_lease_ids=[lease_id] if messages is None else ())
    _add_messages(response, messages or ())
    return response


def _add_messages(response: pb.DeqResponse | pb.AckResponse, messages: Iterable[Leased]) -> None:
    # Field by field, and none that is zero: half the time of keyword arguments, for each of a million messages.
    add = response.messages.add
    for leased in messages:
        message_id, body, attempt, properties = leased.entry
        message = add()
        message.id = message_id
        message.lease_id = leased.lease_id
        message.body = body
        message.attempt = attempt + 1
        message.enqueue_time_ms = properties.enqueue_time_ms
        if properties.priority:
            message.priority = properties.priority
        if properties.headers:
            message.headers.update(properties.headers)


def write_counts(counts: Iterable[Counts]) -> pb.CntResponse:
    return pb.CntResponse(
        queues=[pb.QueueCounts(**{name: getattr(each, name) for name in Counts.__slots__}) for each in counts]
    )


def write_peeked(chunk: Iterable[Peeked]) -> pb.PeekResponse:
    response = pb.PeekResponse()
    for peeked in chunk:
        entry = peeked.entry
        response.messages.add(
            message=pb.Message(
                id=entry.id,
                body=entry.body,
                attempt=entry.attempt,
                priority=entry.properties.priority,
                headers=entry.properties.headers,
                enqueue_time_ms=entry.properties.enqueue_time_ms,
            ),
            state=pb.MessageState.ValueType(peeked.state),
            consumer=peeked.consumer,
            state_age_ms=peeked.state_age_ms,
            ready_time_ms=peeked.ready_time_ms,
            expire_time_ms=entry.properties.expires_ms or 0,
        )
    return response


# -- requests, as a client writes them --------------------------------------------------------------------------------


def write_batch(batch: Batch) -> pb.EnqRequest:
    # Nothing that is empty, which costs as much as what is not: an `enq` has seldom more than a queue and a body.
    request = pb.EnqRequest(queue=batch.queue, bodies=batch.bodies)
    if batch.request_id:
        request.request_id = batch.request_id
    if batch.priority:
        request.priority = batch.priority
    if batch.headers:
        request.headers.update(batch.headers)
    if batch.ack_lease_ids:
        request.ack_lease_ids.extend(batch.ack_lease_ids)
    if batch.delay:
        request.delay.CopyFrom(duration(batch.delay))
    if batch.ttl is not None:
        request.ttl.CopyFrom(duration(batch.ttl))
    return request


def write_subscription(asked: Subscription) -> pb.DeqRequest:
    request = pb.DeqRequest(
        queue=asked.queue,
        max_messages=asked.max_messages,
        prefetch=asked.prefetch,
        prefetch_bytes=asked.prefetch_bytes,
        no_ack=asked.no_ack,
        consumer=asked.consumer,
    )
    if asked.wait is not None:
        request.wait.CopyFrom(duration(asked.wait))
    if asked.ack_timeout:
        request.ack_timeout.CopyFrom(duration(asked.ack_timeout))
    return request


def write_settlement(settlement: Settlement) -> pb.AckRequest:
    request = pb.AckRequest(
        lease_ids=settlement.lease_ids,
        outcome=pb.Outcome.ValueType(settlement.outcome),
        reason=settlement.reason,
        close_stream=settlement.close_stream,
    )
    if settlement.delay:
        request.delay.CopyFrom(duration(settlement.delay))
    return request


def write_query(query: PeekQuery) -> pb.PeekRequest:
    return pb.PeekRequest(
        queue=query.queue,
        limit=query.limit,
        after_id=query.after_id,
        state=pb.MessageState.ValueType(query.state),
    )


# -- answers, as a client reads them ----------------------------------------------------------------------------------


def read_receipt(response: pb.EnqResponse) -> Receipt:
    durability = _DURABILITIES.get(response.durability, Durability.MEMORY)
    return Receipt(response.first_id, response.count, response.duplicate, durability)


def read_counts(response: pb.CntResponse) -> list[Counts]:
    return [Counts(**{name: getattr(each, name) for name in Counts.__slots__}) for each in response.queues]


def was_connected(metadata: Any) -> bool:
    """Return whether the initial metadata of a `Deq` call are those of a server that accepted it."""
    return any(key == VERSION_KEY for key, _ in metadata or ())


def bearer(metadata: Any) -> str:
    """Return the token in the metadata of a call; an empty string when there is none."""
    for key, value in metadata or ():
        if key == AUTHORIZATION_KEY and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
