"""Tidying up: `purge` and `redrive`, for every client."""

from __future__ import annotations

from typing import Any

from stiqueue.errors import NotSupported
from stiqueue.feed import Feed
from stiqueue.message import (
    DEAD_ATTEMPTS_HEADER,
    DEAD_QUEUE_HEADER,
    DEAD_REASON_HEADER,
    DEAD_SUFFIX,
    Batch,
    Delivered,
    Settlement,
    Subscription,
)
from stiqueue.session import Session

PURGE_PREFETCH = 2_000
REDRIVE_PREFETCH = 100


async def purge(session: Session[Any], /, *, queue: str | None = None) -> int:
    """Drop every ready message; return how many. Leased and delayed messages stay."""
    options = session.options
    name = options.queue_of(queue)
    feed = Feed(session, Subscription(name, PURGE_PREFETCH, no_ack=True, wait=0.0, consumer=options.consumer))
    dropped = 0
    try:
        while (messages := await feed.next()) is not None:
            dropped += len(messages)
    finally:
        await feed.leave()
    return dropped


async def redrive(session: Session[Any], /, n: int = 0, *, queue: str | None = None) -> int:
    """Move up to `n` (0: all) dead letters of a queue back to where they came from; return how many.

    Each is enqueued and its dead letter acked in one step (on a cluster: in two), under a `request_id` made of the
    dead letter's id, so a crash in the middle neither loses nor doubles one.
    """
    options = session.options
    name = options.queue_of(queue)
    asked = Subscription(
        name + DEAD_SUFFIX, REDRIVE_PREFETCH, max_messages=max(0, n), wait=0.0, consumer=options.consumer
    )
    feed = Feed(session, asked)
    moved = 0
    try:
        while (messages := await feed.next()) is not None:
            for message in messages:
                await _revive(session, _revived(message, name))
                moved += 1
    finally:
        await feed.leave()
    return moved


async def _revive(session: Session[Any], batch: Batch) -> None:
    """Enqueue and ack what `batch` says, in one step where the server can."""
    transport, timeout = session.connected(), session.options.timeout
    try:
        await transport.enq(batch, timeout)
    except NotSupported:
        await transport.enq(batch._replace(ack_lease_ids=()), timeout)
        await transport.settle(Settlement(batch.ack_lease_ids), timeout)


def _revived(message: Delivered, queue: str) -> Batch:
    """Return what enqueues a dead letter of `queue` where it came from, and acks it."""
    headers = dict(message.headers)
    origin = headers.pop(DEAD_QUEUE_HEADER, queue)
    if origin == queue + DEAD_SUFFIX:  # died where dead letters live: back there it would be redriven for ever
        origin = queue
    headers.pop(DEAD_REASON_HEADER, None)
    headers.pop(DEAD_ATTEMPTS_HEADER, None)
    return Batch(
        origin,
        [message.body],
        f"redrive-{message.id}-{message.enqueue_time_ms}",
        message.priority,
        headers=headers,
        ack_lease_ids=[message.lease_id],
    )
