"""Enqueueing: `enq`, `enq_many` and what `Message.ack_and_enq` does, for every client."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, cast

from stiqueue.backoff import Backoff
from stiqueue.errors import InvalidRequest, QueueFull
from stiqueue.message import NO_HEADERS, Batch, Body, Message, Receipt
from stiqueue.session import Session
from stiqueue.tracing import Tracing

BATCH_MESSAGES = 1_000
"""Most messages that `enq_many` puts into one request."""

HAND_OVER_OPTIONS: dict[str, Any] = {
    "queue": None,
    "priority": 0,
    "delay": 0.0,
    "ttl": None,
    "headers": None,
    "request_id": None,
}
"""The options of `Message.ack_and_enq` beside `timeout`, with their defaults."""


async def enq(
    session: Session[Any],
    /,
    msg: Body,
    *,
    queue: str | None = None,
    priority: int = 0,
    delay: float = 0.0,
    ttl: float | None = None,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    block: bool = False,
    timeout: float | None = None,
) -> int:
    """Enqueue one message; return its id once the server has it as safe as it promises.

    Args:
        msg: the body; text is sent as UTF-8.
        queue: the queue; default: the client's.
        priority: 0..255; higher is delivered first.
        delay: seconds until it can be delivered.
        ttl: seconds until it is dropped when nobody has taken it; default: never.
        headers: at most 64, 8 KiB in all.
        request_id: a name for this request, so that a repetition within 5 minutes enqueues nothing; default: a new
            one, which makes the client's own retries safe.
        block: wait for room when the queue is full, for up to `timeout`.
        timeout: seconds to wait for an absent server (and for room); default: the client's.

    Raises:
        InvalidRequest: a value is out of range.
        QueueFull: there is no room (with `block`: not within `timeout`).
        Unavailable: the server stayed away for `timeout`. Whether it has the message is unknown; enqueue it again
            with the same `request_id` to be sure to have it once.
    """
    batch = _batch(session, [_body(msg)], queue, priority, delay, ttl, headers, request_id)
    if session.tracing is None:
        return (await _enq(session, batch, block, timeout)).first_id
    return await _traced(session.tracing, batch, partial(_enq, session, block=block, timeout=timeout))


async def enq_many(
    session: Session[Any],
    /,
    msgs: Iterable[Body],
    *,
    queue: str | None = None,
    priority: int = 0,
    delay: float = 0.0,
    ttl: float | None = None,
    headers: Mapping[str, str] | None = None,
    block: bool = False,
    timeout: float | None = None,
) -> int:
    """Enqueue many messages in order, in requests of up to 1,000; return how many, once the server has all.

    Each request is all or nothing. After an error the messages of earlier requests are enqueued. The arguments and
    errors are those of `enq`.
    """
    batch = _batch(session, [], queue, priority, delay, ttl, headers, None)
    if session.tracing is None:
        return await _enq_groups(session, batch, msgs, block, timeout)
    with session.tracing.sending(batch.queue, batch.headers) as sending:
        total = await _enq_groups(session, batch._replace(headers=sending.headers), msgs, block, timeout)
        sending.sent_many(total)
    return total


async def _enq_groups(
    session: Session[Any], like: Batch, msgs: Iterable[Body], block: bool, timeout: float | None
) -> int:
    """Enqueue `msgs` in requests that are `like` this one without bodies; return how many."""
    total = 0
    under_way = None
    for bodies in _grouped(msgs, session.options.batch_bytes):
        batch = like._replace(bodies=bodies)
        # While one request is under way, the next is put together; never two at a time, for order.
        if under_way is not None:
            await under_way()
        if block:
            await _enq(session, batch, block, timeout)
            under_way = None
        else:
            under_way = session.connected().enq_soon(batch, session.options.timeout_of(timeout))
        total += len(bodies)
    if under_way is not None:
        await under_way()
    return total


async def enq_and_ack(session: Session[Any], /, msg: Body, message: Message, **options: Any) -> int:
    """Enqueue `msg` and ack `message` in one step: what `Message.ack_and_enq` does, with its options."""
    timeout = options.pop("timeout", None)
    unknown = options.keys() - HAND_OVER_OPTIONS.keys()
    if unknown:
        raise TypeError(f"ack_and_enq has no option {sorted(unknown)}")
    batch = _batch(session, [_body(msg)], **HAND_OVER_OPTIONS | options)
    batch = batch._replace(ack_lease_ids=[message.lease_id])
    seconds = session.options.timeout_of(timeout)
    if session.tracing is None:
        return (await session.connected().enq(batch, seconds)).first_id
    return await _traced(session.tracing, batch, partial(session.connected().enq, timeout=seconds))


async def _traced(tracing: Tracing, batch: Batch, enqueue: Callable[[Batch], Coroutine[Any, Any, Receipt]]) -> int:
    """Let `enqueue` have `batch`, of one message, in a span; return the message's id."""
    with tracing.sending(batch.queue, batch.headers) as sending:
        message_id = (await enqueue(batch._replace(headers=sending.headers))).first_id
        sending.sent_one(message_id, batch.bodies[0])
    return message_id


def _batch(
    session: Session[Any],
    bodies: list[bytes],
    queue: str | None,
    priority: int,
    delay: float,
    ttl: float | None,
    headers: Mapping[str, str] | None,
    request_id: str | None,
) -> Batch:
    return Batch(session.options.queue_of(queue), bodies, request_id or "", priority, delay, ttl, headers or NO_HEADERS)


async def _enq(session: Session[Any], batch: Batch, block: bool, timeout: float | None) -> Receipt:
    transport = session.connected()
    timeout = session.options.timeout_of(timeout)
    backoff = Backoff(timeout)
    started = time.monotonic()
    while True:
        try:
            return await transport.enq(batch, timeout)
        except QueueFull as error:
            if not block:
                raise
            full = error
        await backoff.pause(full, session.interrupted, started)


def _body(msg: Body) -> bytes:
    if isinstance(msg, str):
        try:
            return msg.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest(f"msg: {error}", "BAD_BODY") from error
    if isinstance(msg, (bytes, bytearray, memoryview)):
        return bytes(msg)
    raise InvalidRequest(f"a message is str or bytes, not {type(msg).__name__}", "BAD_BODY")


def _grouped(msgs: Iterable[Body], most_bytes: int) -> Iterator[list[bytes]]:
    """Group messages in order, up to 1,000 and `most_bytes` a group."""
    source = iter(msgs)
    while group := list(islice(source, BATCH_MESSAGES)):
        # Usually all are bytes and fit: no step in Python for each of a million messages a second.
        bodies = cast("list[bytes]", group) if set(map(type, group)) == {bytes} else list(map(_body, group))
        if sum(map(len, bodies)) <= most_bytes:
            yield bodies
        else:
            yield from _divided(bodies, most_bytes)


def _divided(bodies: list[bytes], most_bytes: int) -> Iterator[list[bytes]]:
    """Divide a group in order into those of up to `most_bytes`; a larger message goes alone."""
    part: list[bytes] = []
    size = 0
    for body in bodies:
        if part and size + len(body) > most_bytes:
            yield part
            part, size = [], 0
        part.append(body)
        size += len(body)
    yield part
