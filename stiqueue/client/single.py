"""Single messages by their ids: `take`, `cancel`, `reschedule` and `replace`, for every client."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from stiqueue.arguments import check_kind, check_seconds
from stiqueue.client.enqueue import batch_of, body_of
from stiqueue.client.feed import Feed
from stiqueue.client.holding import Holding
from stiqueue.client.session import M, Session
from stiqueue.errors import MessageLeased
from stiqueue.limits import MAX_DELAY, MAX_IDS, check_ids, check_properties
from stiqueue.message import Body, Outcome, Settlement, Subscription


async def take(session: Session[M], /, message_id: int, *, queue: str | None = None) -> M | None:
    """Take one message by its id, ready or delayed, wherever it stands and whether or not the queue is paused.

    It is leased until you settle it (`Message.ack` and its kin); nothing settles it implicitly. When the client closes
    or the `Message` is gone, it goes back to its old place, a delayed one with its delay, and no attempt counts.

    Args:
        message_id: the id, which `enq` returned.
        queue: the queue; default: the client's.

    Returns:
        The message; None when it is not in the queue: it is done, expired, or was never there.

    Raises:
        MessageLeased: a consumer holds it.
        NotSupported: the server keeps its messages in a cluster.
    """
    held = await _take(session, message_id, queue)
    return None if held is None else held[1]


async def cancel(session: Session[Any], /, *message_ids: int, queue: str | None = None) -> int:
    """Drop messages by their ids, ready or delayed; return how many. Those that a consumer holds stay."""
    options = session.options
    dropped = 0
    for feed in each_feed(session, options.queue_of(queue), message_ids):
        try:
            while (messages := await feed.next()) is not None:
                lease_ids = [message.lease_id for message in messages]
                stale = await session.connected().settle(Settlement(lease_ids), options.timeout)
                dropped += len(lease_ids) - len(stale)
        finally:
            await feed.leave()
    return dropped


async def reschedule(session: Session[Any], /, message_id: int, delay: float, *, queue: str | None = None) -> bool:
    """Let a message, ready or delayed, be ready in `delay` seconds from now, under the same id.

    Returns:
        Whether it was in the queue.

    Raises:
        MessageLeased: a consumer holds it.
    """
    check_seconds("delay", delay, MAX_DELAY)
    held = await _take(session, message_id, queue)
    if held is None:
        return False
    leases, message = held
    try:
        return await leases.settled(message, Settlement([message.lease_id], Outcome.REQUEUE, delay))
    finally:
        session.drop(leases)


async def replace(
    session: Session[Any],
    /,
    message_id: int,
    msg: Body | None = None,
    *,
    queue: str | None = None,
    priority: int | None = None,
    delay: float = 0.0,
    ttl: float | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float | None = None,
) -> int | None:
    """Enqueue a message instead of another, ready or delayed, in one step: both happen or neither.

    The new message stands behind all others of its priority. It has the body, the priority and the headers of the old
    one as far as you give no others, and its key and unique key; but not its delay and its ttl.

    Args:
        message_id: the id of the message to replace.
        msg: the new body; default: the old one.
        queue: the queue of both; default: the client's.
        priority: 0..255; default: the old one.
        delay: seconds until the new message can be delivered.
        ttl: seconds until the new message expires; default: never.
        headers: at most 64, 8 KiB in all; default: the old ones.
        timeout: seconds to wait for an absent server; default: the client's.

    Returns:
        The id of the new message; None when the old one is not in the queue, and nothing was enqueued.

    Raises:
        MessageLeased: a consumer holds the old one.
    """
    bodies = [] if msg is None else [body_of(msg)]
    check_properties(batch_of(session, bodies, queue, 0 if priority is None else priority, delay, ttl, headers, None))
    session.options.timeout_of(timeout)
    held = await _take(session, message_id, queue)
    if held is None:
        return None
    leases, message = held
    try:
        return await leases.handed_over(
            message,
            bytes(message) if msg is None else msg,
            queue=message.queue,
            priority=message.priority if priority is None else priority,
            delay=delay,
            ttl=ttl,
            headers=message.headers if headers is None else headers,
            key=message.key or None,
            unique_key=message.unique_key or None,
            timeout=timeout,
        )
    finally:
        session.drop(leases)


async def _take(session: Session[M], message_id: int, queue: str | None) -> tuple[Holding[M], M] | None:
    name = session.options.queue_of(queue)
    (feed,) = each_feed(session, name, [message_id])
    try:
        messages = await feed.next()
        stream = feed.stream
    except BaseException:
        await feed.leave()
        raise
    if messages is None or stream is None:
        await feed.leave()
        if stream is not None and message_id in stream.leased_ids:
            raise MessageLeased(f"message {message_id} of {name} is leased: a consumer works on it")
        return None
    leases = Holding(session, stream, name, ends=True, acks=False)
    session.hold(leases)
    session.ended(stream)  # from now on it is that of the leases
    return leases, leases.hand_out(messages[0])


def each_feed(session: Session[Any], queue: str, message_ids: Iterable[int]) -> Iterator[Feed]:
    """Yield feeds of the messages with `message_ids`, in groups. The caller reads each to its end and leaves it."""
    check_kind("ids", message_ids, Iterable, "a list of ids", "BAD_IDS")
    given = list(message_ids)
    for start in range(0, len(given), MAX_IDS):
        check_ids(given[start : start + MAX_IDS])
    ids, options = list(dict.fromkeys(given)), session.options
    for start in range(0, len(ids), MAX_IDS):
        part = ids[start : start + MAX_IDS]
        asked = Subscription(queue, len(part), ack_timeout=options.ack_timeout, consumer=options.consumer, ids=part)
        yield Feed(session, asked)
