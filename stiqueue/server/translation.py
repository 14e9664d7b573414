"""Translates requests into values and answers into messages of the protocol: no checks and no rules."""

from __future__ import annotations

import time
from collections.abc import Iterable

from stiqueue.errors import InvalidRequest
from stiqueue.limits import DEFAULT_PREFETCH_BYTES, queue_name
from stiqueue.message import (
    NO_HEADERS,
    Batch,
    Counts,
    Outcome,
    PeekQuery,
    Receipt,
    Settlement,
    State,
    Subscription,
)
from stiqueue.rules.entry import Leased, Peeked
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.wire.metadata import seconds

# -- requests, as the server reads them -------------------------------------------------------------------------------


def read_batch(request: pb.EnqRequest) -> Batch:
    return Batch(
        queue_name(request.queue),
        list(request.bodies),
        request.request_id,
        request.priority,
        seconds("delay", request.delay) if request.HasField("delay") else 0.0,
        seconds("ttl", request.ttl) if request.HasField("ttl") else None,
        dict(request.headers) if request.headers else NO_HEADERS,
        list(request.ack_lease_ids),
        request.key,
        request.unique_key,
    )


def read_subscription(request: pb.DeqRequest, no_ack: bool) -> Subscription:
    """Read with the server's own `no_ack` if that is set."""
    prefetch = request.prefetch or 1
    most = request.max_messages
    if request.ids:  # somebody looks after single messages, who is not to lose them
        no_ack = False
    if no_ack and not request.no_ack:
        # This client reckons with a credit, and there is nothing to settle that would renew it.
        most = min(most or prefetch, prefetch)
    return Subscription(
        queue_name(request.queue),
        prefetch,
        request.prefetch_bytes or DEFAULT_PREFETCH_BYTES,
        most,
        request.no_ack or no_ack,
        seconds("wait", request.wait) if request.HasField("wait") else None,
        seconds("ack_timeout", request.ack_timeout) or None,
        request.consumer,
        request.concurrency,
        list(request.ids),
    )


def read_settlement(request: pb.AckRequest) -> Settlement:
    outcome = request.outcome or pb.OUTCOME_ACK
    if outcome not in _OUTCOMES:
        raise InvalidRequest(f"outcome: {outcome} is unknown", "BAD_OUTCOME")
    return Settlement(
        list(request.lease_ids),
        Outcome(outcome),
        seconds("delay", request.delay),
        request.reason,
        request.close_stream,
        request.untouched,
    )


def read_query(request: pb.PeekRequest) -> PeekQuery:
    state = request.state or pb.MESSAGE_STATE_READY
    if state not in _STATES:
        raise InvalidRequest(f"state: {state} is unknown", "BAD_STATE")
    after_priority = request.after_priority if request.HasField("after_priority") else None
    return PeekQuery(queue_name(request.queue), request.limit, request.after_id, State(state), after_priority)


_OUTCOMES = frozenset(int(each) for each in Outcome)
_STATES = frozenset(int(each) for each in State)

# -- answers, as the server writes them -------------------------------------------------------------------------------


def write_receipt(receipt: Receipt) -> pb.EnqResponse:
    first_id, number, duplicate, durability = receipt
    reached = pb.Durability.ValueType(durability)
    return pb.EnqResponse(first_id=first_id, count=number, duplicate=duplicate, durability=reached)


def write_messages(messages: Iterable[Leased], lease_ms: int, leased_ids: Iterable[int] = ()) -> pb.DeqResponse:
    """Write messages; their leases last so many milliseconds, or with 0 as long as their stream."""
    response = pb.DeqResponse()
    if leased_ids:
        response.leased_ids.extend(leased_ids)
    if lease_ms:
        response.sent_ms = time.monotonic_ns() // 1_000_000
        response.lease_ms = lease_ms
    _add_messages(response, messages)
    return response


def write_exchanged(lease_id: str, messages: Iterable[Leased] | None) -> pb.AckResponse:
    """Write the result of `Engine.exchange`."""
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
        if properties.key:
            message.key = properties.key
        if properties.unique_key:
            message.unique_key = properties.unique_key


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
                key=entry.properties.key,
                unique_key=entry.properties.unique_key,
            ),
            state=pb.MessageState.ValueType(peeked.state),
            consumer=peeked.consumer,
            state_age_ms=peeked.state_age_ms,
            ready_time_ms=peeked.ready_time_ms,
            expire_time_ms=entry.properties.expires_ms or 0,
            blocked=peeked.blocked,
        )
    return response
