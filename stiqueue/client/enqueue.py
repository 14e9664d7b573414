"""Enqueueing: `enq`, `enq_many`, `enq_and_ack` and `Message.ack_and_enq`, for every client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from functools import partial
from inspect import Parameter, signature
from itertools import islice
from typing import Any, cast

from stiqueue.arguments import check_kind, encoded, no_such_argument
from stiqueue.client.backoff import Backoff, Patience
from stiqueue.client.session import Session
from stiqueue.client.tracing import Tracing
from stiqueue.errors import InvalidRequest, NotSupported, QueueFull
from stiqueue.limits import check_properties
from stiqueue.message import NO_HEADERS, Batch, Body, Message, Receipt, Settlement

BATCH_MESSAGES = 999
"""The most messages in one request: a cluster stores up to 1,000 entries atomically, one of them the request id."""

LAST_TRY_SECONDS = 0.25
"""How long the last try of `enq` with `block` may take, at the end of its timeout."""


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
    key: str | None = None,
    unique_key: str | None = None,
    block: bool = False,
    timeout: float | None = None,
) -> int:
    """Enqueue one message; return its id once the server has it at its durability level.

    Args:
        msg: the body; text is sent as UTF-8.
        queue: the queue; default: the client's.
        priority: 0..255; higher is delivered first.
        delay: seconds until it can be delivered.
        ttl: seconds until it is dropped when nobody has taken it; default: never.
        headers: at most 64, 8 KiB in all.
        request_id: a name for this request, so that a repetition within 5 minutes enqueues nothing; default: a new
            one, which makes the client's own retries safe.
        key: what the message is about, such as a customer: messages of one key are worked on in order and one at a
            time, whoever works on them. At most 128 bytes of UTF-8; default: none, and it waits for no other message.
        unique_key: while a message with this unique key is in the queue, nothing is enqueued, and the id of that
            message is returned. At most 128 bytes of UTF-8; default: none.
        block: wait for room when the queue is full, for up to `timeout`.
        timeout: seconds to wait for an absent server (and for room); default: the client's.

    Raises:
        InvalidRequest: a value is out of range.
        QueueFull: there is no room (with `block`: not within `timeout`).
        Unavailable: the server stayed away for `timeout`. Whether it has the message is unknown; enqueue it again
            with the same `request_id` to be sure to have it once.
    """
    batch = batch_of(session, [body_of(msg)], queue, priority, delay, ttl, headers, request_id, key, unique_key)
    if session.tracing is None:
        return (await _enq(session, batch, block, timeout)).first_id
    return (await _traced(session.tracing, batch, partial(_enq, session, block=block, timeout=timeout))).first_id


HAND_OVER_OPTIONS: dict[str, Any] = {
    name: parameter.default
    for name, parameter in signature(enq).parameters.items()
    if parameter.kind is Parameter.KEYWORD_ONLY and name not in ("block", "timeout")
}
"""The options of `Message.ack_and_enq` beside `timeout`, with their defaults."""


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
    key: str | None = None,
    block: bool = False,
    timeout: float | None = None,
) -> int:
    """Enqueue many messages in order, in requests of up to 999; return how many, once the server has all.

    Each request is all or nothing. After an error the messages of earlier requests are enqueued. The arguments and
    errors are those of `enq`.
    """
    if isinstance(msgs, (str, bytes, bytearray, memoryview)):
        raise InvalidRequest(
            f"msgs: one message of type {type(msgs).__name__}; write enq(msg), or enq_many([msg])", "BAD_BODY"
        )
    check_kind("msgs", msgs, Iterable, "a list of messages, or another iterable", "BAD_BODY")
    batch = batch_of(session, [], queue, priority, delay, ttl, headers, None, key)
    check_properties(batch)
    timeout = session.options.timeout_of(timeout)
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
    for bodies in grouped(msgs, session.options.batch_bytes):
        batch = like._replace(bodies=bodies)
        # Prepare the next request while one is in flight; never two in flight, to keep the order.
        if under_way is not None:
            await under_way()
        if block:
            await _enq(session, batch, block, timeout)
            under_way = None
        else:
            under_way = session.connected().begin_enq(batch, session.options.timeout_of(timeout))
        total += len(bodies)
    if under_way is not None:
        await under_way()
    return total


async def enq_and_ack(session: Session[Any], /, msg: Body, message: Message, **options: Any) -> int:
    """Enqueue `msg` and ack `message` in one step, like `Message.ack_and_enq` and with its options."""
    check_kind("message", message, Message, "what deq() returned", "BAD_MESSAGE")
    # Through the message's holder, so that the ack brings no message that nobody asked for.
    new_id = message.ack_and_enq(msg, by=session, **options)
    return new_id if isinstance(new_id, int) else int(await new_id)


async def hand_over(session: Session[Any], batch: Batch, seconds: float, splits: bool = False) -> int:
    """Send the request that `successor` returned; return the new message's id.

    Args:
        session: the client that sends it.
        batch: the message to enqueue, and the lease to ack.
        seconds: how long to wait for an absent server.
        splits: enqueue first and ack afterwards if the server cannot do both in one step. `batch` needs a request id,
            because the message may be delivered again in between.
    """
    if not splits:
        return (await enq_batch(session, batch, seconds)).first_id
    plain = batch._replace(ack_lease_ids=())
    if not all(batch.ack_lease_ids):  # delivered without a lease
        return (await enq_batch(session, plain, seconds)).first_id
    try:
        receipt = await enq_batch(session, batch, seconds)
    except NotSupported:
        receipt = await enq_batch(session, plain, seconds)
        await session.connected().settle(Settlement(batch.ack_lease_ids), seconds)
    return receipt.first_id


async def enq_batch(session: Session[Any], batch: Batch, seconds: float) -> Receipt:
    """Enqueue the one message of `batch`."""
    enqueue = partial(session.connected().enq, timeout=seconds)
    return await (enqueue(batch) if session.tracing is None else _traced(session.tracing, batch, enqueue))


def successor(
    session: Session[Any], msg: Body, message: Message, timeout: float | None = None, **options: Any
) -> tuple[Batch, float]:
    """Check the arguments of `enq_and_ack`; return the request and its time limit.

    Raises:
        InvalidRequest: a value has the wrong type or is out of range.
        TypeError: there is no such option.
    """
    unknown = options.keys() - HAND_OVER_OPTIONS.keys()
    if unknown:
        raise no_such_argument("ack_and_enq", unknown, [*HAND_OVER_OPTIONS, "timeout"])
    check_kind("message", message, Message, "what deq() returned", "BAD_MESSAGE")
    batch = batch_of(session, [body_of(msg)], **HAND_OVER_OPTIONS | options)
    check_properties(batch)
    return batch._replace(ack_lease_ids=[message.lease_id]), session.options.timeout_of(timeout)


async def _traced(tracing: Tracing, batch: Batch, enqueue: Callable[[Batch], Coroutine[Any, Any, Receipt]]) -> Receipt:
    """Enqueue a `batch` of one message by `enqueue`, in a span."""
    with tracing.sending(batch.queue, batch.headers) as sending:
        receipt = await enqueue(batch._replace(headers=sending.headers))
        sending.sent_one(receipt.first_id, batch.bodies[0])
    return receipt


def batch_of(
    session: Session[Any],
    bodies: list[bytes],
    queue: str | None,
    priority: int,
    delay: float,
    ttl: float | None,
    headers: Mapping[str, str] | None,
    request_id: str | None,
    key: str | None = None,
    unique_key: str | None = None,
) -> Batch:
    """Return a user's arguments as a batch. Checks only the queue."""
    return Batch(
        session.options.queue_of(queue),
        bodies,
        "" if request_id is None else request_id,
        priority,
        delay,
        ttl,
        NO_HEADERS if headers is None else headers,
        (),
        "" if key is None else key,
        "" if unique_key is None else unique_key,
    )


async def _enq(session: Session[Any], batch: Batch, block: bool, timeout: float | None) -> Receipt:
    transport = session.connected()
    seconds = session.options.timeout_of(timeout)
    if not block:
        return await transport.enq(batch, seconds)
    patience = Patience.of(seconds)
    batch = transport.named(batch)  # after a lost answer, the next try may find the queue full
    backoff = Backoff(patience.seconds)
    while True:
        try:
            return await transport.enq(batch, max(patience.left, LAST_TRY_SECONDS))
        except QueueFull as error:
            full = error
        await backoff.pause(full, session.interrupted, patience.since)


def body_of(msg: Body) -> bytes:
    """Return a message as bytes. For another type, raise `InvalidRequest`, which says what to write."""
    if isinstance(msg, str):
        return encoded("msg", msg, "BAD_BODY")
    if isinstance(msg, (bytes, bytearray, memoryview)):
        return bytes(msg)
    meant = (
        '"" if it is to be empty'
        if msg is None
        else "json.dumps(msg)"
        if isinstance(msg, (dict, list, tuple))
        else "str(msg)"
    )
    raise InvalidRequest(f"msg: a message is str or bytes, not {type(msg).__name__}; write {meant}", "BAD_BODY")


def grouped(msgs: Iterable[Body], most_bytes: int) -> Iterator[list[bytes]]:
    """Group messages in order, up to 999 and `most_bytes` a group."""
    source = iter(msgs)
    while group := list(islice(source, BATCH_MESSAGES)):
        # Usually all are bytes and fit: no Python step per message at a million messages a second.
        bodies = cast("list[bytes]", group) if set(map(type, group)) == {bytes} else list(map(body_of, group))
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
