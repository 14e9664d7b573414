"""Tidying up: `purge` and `redrive`, for every client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stiqueue.client.feed import Feed
from stiqueue.client.session import Session
from stiqueue.client.single import cancel, each_feed
from stiqueue.errors import InvalidRequest, LeaseStale, NotSupported, StiQueueError
from stiqueue.limits import count_of, suffixed
from stiqueue.message import (
    DEAD_ATTEMPTS_HEADER,
    DEAD_QUEUE_HEADER,
    DEAD_REASON_HEADER,
    DEAD_SUFFIX,
    Batch,
    Delivered,
    Outcome,
    PeekQuery,
    Settlement,
    State,
    Subscription,
)

PURGE_PREFETCH = 2_000
REDRIVE_PREFETCH = 100
REFUSED_SECONDS = 5.0
"""How long a dead letter that cannot go back lets those behind it pass."""
MOST_REFUSED = 100


async def purge(session: Session[Any], /, *, queue: str | None = None, state: State = State.READY) -> int:
    """Drop every message of a queue in one state; return how many. Leased messages stay.

    So do ready messages that wait for another of their key, and those of a queue that is paused or has reached its
    `max_leased`: consumers get none of them.

    Args:
        queue: the queue; default: the client's.
        state: `State.READY`, `State.DELAYED`, or `State.ALL` for both.

    Raises:
        InvalidRequest: another state.
        NotSupported: delayed messages of a server that keeps its messages in a cluster.
    """
    name = session.options.queue_of(queue)
    if state not in (State.READY, State.DELAYED, State.ALL):
        raise InvalidRequest(f"state: {state!r} cannot be purged; write State.READY, State.DELAYED or State.ALL")
    # Delayed ones first: those that become ready meanwhile are then dropped as ready ones.
    dropped = await _purge_delayed(session, name) if state is not State.READY else 0
    return dropped + (await _purge_ready(session, name) if state is not State.DELAYED else 0)


async def _purge_ready(session: Session[Any], queue: str) -> int:
    feed = Feed(session, Subscription(queue, PURGE_PREFETCH, no_ack=True, wait=0.0, consumer=session.options.consumer))
    dropped = 0
    try:
        while (messages := await feed.next()) is not None:
            dropped += len(messages)
    finally:
        await feed.leave()
    return dropped


async def _purge_delayed(session: Session[Any], queue: str) -> int:
    """Drop delayed messages by their ids, some at a time, because a stream delivers ready ones only."""
    query = PeekQuery(queue, PURGE_PREFETCH, 0, State.DELAYED)
    dropped = 0
    while page := await session.connected().peek(query, session.options.timeout):
        gone = await cancel(session, *(message.id for message in page), queue=queue)
        if not gone:  # consumers took what has become ready meanwhile
            break
        dropped += gone
    return dropped


async def redrive(
    session: Session[Any], /, n: int = 0, *, queue: str | None = None, ids: Iterable[int] | None = None
) -> int:
    """Move up to `n` (0: all) dead letters of a queue back to where they came from; return how many.

    With `ids` only those dead letters, by their ids in the dead letter queue; those that a consumer holds stay. While
    the dead letter queue is paused, only those chosen by `ids` move.

    Enqueues each and acks its dead letter in one step (on a cluster: in two), under a `request_id` derived from the
    dead letter's id, so that a crash neither loses nor doubles one. Goes on when the connection is lost.

    A dead letter whose original queue refuses it stays, delayed for five seconds, and those behind it move. After 100
    of them nothing more moves.

    Raises:
        LimitReached, InvalidRequest or AccessDenied: why the first was refused; its text says how many have moved.
    """
    options = session.options
    name = options.queue_of(queue)
    most = count_of(n)
    asked = Subscription(
        suffixed(name, DEAD_SUFFIX),
        REDRIVE_PREFETCH,
        max_messages=most,
        wait=0.0,
        consumer=options.consumer,
        concurrency=1,
    )
    moved = 0
    refused: dict[int, StiQueueError] = {}
    for feed in [Feed(session, asked)] if ids is None else each_feed(session, asked.queue, ids):
        try:
            while len(refused) < MOST_REFUSED and (messages := await feed.next()) is not None:
                for message in messages:
                    try:
                        moved += await _revive(session, _revived(message, name))
                        refused.pop(message.id, None)
                    except StiQueueError as error:
                        if not error.is_refusal:
                            raise
                        refused[message.id] = error
                        await _put_off(session, message)
                    if moved == most > 0:  # after a lost stream, the next would bring as many again
                        return moved
        finally:
            await feed.leave()
    if refused:
        first = next(iter(refused.values()))
        text = f"{moved} moved; {len(refused)} stay in {asked.queue}, of which the first was refused: {first}"
        raise type(first)(text, first.reason)
    return moved


async def _revive(session: Session[Any], batch: Batch) -> bool:
    """Enqueue and ack in one step where the server can.

    Returns:
        False: the lease was lost with the connection; the server delivers the dead letter again.
    """
    transport, timeout = session.connected(), session.options.timeout
    try:
        await transport.enq(batch, timeout)
    except LeaseStale:
        return False
    except NotSupported:
        await transport.enq(batch._replace(ack_lease_ids=()), timeout)
        return not await transport.settle(Settlement(batch.ack_lease_ids), timeout)
    return True


async def _put_off(session: Session[Any], message: Delivered) -> None:
    """Give back a dead letter that cannot move now, so that those behind it come."""
    back = Settlement([message.lease_id], Outcome.REQUEUE, REFUSED_SECONDS, untouched=True)
    await session.connected().settle(back, session.options.timeout)


def _revived(message: Delivered, queue: str) -> Batch:
    """Return a request that enqueues a dead letter of `queue` where it came from, and acks it."""
    headers = dict(message.headers)
    origin = headers.pop(DEAD_QUEUE_HEADER, queue)
    if origin == suffixed(
        queue, DEAD_SUFFIX
    ):  # it died in the dead letter queue: going back there it would be redriven for ever
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
        key=message.key,
    )
