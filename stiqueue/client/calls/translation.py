"""Translates values into requests and responses into values: no checks and no rules."""

from __future__ import annotations

from stiqueue.message import (
    Batch,
    Counts,
    Durability,
    Outcome,
    PeekQuery,
    Receipt,
    Settlement,
    Subscription,
)
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.wire.metadata import duration

# -- requests, as a client writes them --------------------------------------------------------------------------------


def write_batch(batch: Batch, request: pb.EnqRequest) -> None:
    # Skip empty fields: setting one costs as much as a full one, and an `enq` seldom has more than a queue and a body.
    request.queue = batch.queue
    request.bodies.extend(batch.bodies)
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
    if batch.key:
        request.key = batch.key
    if batch.unique_key:
        request.unique_key = batch.unique_key


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
    if asked.concurrency:
        request.concurrency = asked.concurrency
    if asked.ids:
        request.ids.extend(asked.ids)
    return request


def write_settlement(settlement: Settlement, request: pb.AckRequest) -> None:
    request.lease_ids.extend(settlement.lease_ids)
    if settlement.outcome is not Outcome.ACK:
        request.outcome = pb.Outcome.ValueType(settlement.outcome)
    if settlement.reason:
        request.reason = settlement.reason
    if settlement.close_stream:
        request.close_stream = True
    if settlement.untouched:
        request.untouched = True
    if settlement.delay:
        request.delay.CopyFrom(duration(settlement.delay))


def write_query(query: PeekQuery) -> pb.PeekRequest:
    return pb.PeekRequest(
        queue=query.queue,
        limit=query.limit,
        after_id=query.after_id,
        state=pb.MessageState.ValueType(query.state),
        after_priority=query.after_priority,
    )


_DURABILITIES: dict[int, Durability] = {int(each): each for each in Durability}
"""By number: faster than calling the enumeration, with a default for unknown numbers."""

# -- answers, as a client reads them ----------------------------------------------------------------------------------


def read_receipt(response: pb.EnqResponse) -> Receipt:
    durability = _DURABILITIES.get(response.durability, Durability.MEMORY)
    return Receipt(response.first_id, response.count, response.duplicate, durability)


def read_counts(response: pb.CntResponse) -> list[Counts]:
    return [Counts(**{name: getattr(each, name) for name in Counts.__slots__}) for each in response.queues]
