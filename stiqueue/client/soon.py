"""Enqueueing without waiting for each confirmation: `enq_soon` and `flush`, for every client."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, ParamSpec, TypeVar, cast

from stiqueue.arguments import check_seconds
from stiqueue.client.enqueue import batch_of, body_of
from stiqueue.client.session import Session
from stiqueue.limits import MAX_DELAY, check_properties
from stiqueue.message import NO_HEADERS, Body

P = ParamSpec("P")
T = TypeVar("T")


async def enq_soon(
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
    timeout: float | None = None,
) -> Any:
    """Hand over one message to be enqueued, and go on; return a future of its id.

    The future is a `concurrent.futures.Future`; that of an `AsyncSQClient` is an `asyncio.Future`. It has the id once
    the server has the message as safe as it promises, or the error that `enq` would raise. Messages are enqueued in the
    order in which a thread or task hands them over, several in a request. While the client's `window` of messages is
    unconfirmed, this call waits for room.

    `flush`, `close`, the end of a ``with`` block and the end of the interpreter wait for what is unconfirmed. A failure
    that nobody has asked the future for is raised by the next `flush` or `close`, or logged.

    A future that is cancelled before its message is sent cancels the message. One of an `AsyncSQClient` can also be
    cancelled later; its message may be enqueued.

    Args:
        msg: the body; text is sent as UTF-8.
        queue: the queue; default: the client's.
        priority: 0..255; higher is delivered first.
        delay: seconds until it can be delivered.
        ttl: seconds until it is dropped when nobody has taken it; default: never.
        headers: at most 64, 8 KiB in all.
        request_id: as for `enq`; a message that has one travels alone.
        key: as for `enq`; messages of different keys do not share a request.
        unique_key: as for `enq`; a message that has one travels alone.
        timeout: seconds to wait for room, and for an absent server; default: the client's.

    Raises:
        InvalidRequest: a value is out of range.
        Unavailable: there was no room within `timeout`; the message was not handed over.
        Closed: the client was closed.
    """
    headers = NO_HEADERS if headers is None else dict(headers) if isinstance(headers, Mapping) else headers
    batch = batch_of(session, [body_of(msg)], queue, priority, delay, ttl, headers, request_id, key, unique_key)
    check_properties(batch)
    seconds = session.options.timeout_of(timeout)
    session.raise_if_closed()
    session.connected()  # now: a client that is closing still sends its messages, but does not connect
    if session.tracing is None:
        return await session.window.put(batch, seconds, session.connected)
    with session.tracing.sending(batch.queue, batch.headers) as sending:
        return await session.window.put(batch._replace(headers=sending.headers), seconds, session.connected)


async def flush(session: Session[Any], /, timeout: float | None = None) -> None:
    """Wait until every message that this client was handed by `enq_soon`, on any thread, is confirmed or has failed.

    Args:
        timeout: seconds to wait; default: for ever, which ends because each message has its own timeout.

    Raises:
        StiQueueError: the first failure that nobody has asked its future for; further ones are logged.
        Unavailable: some messages are still unconfirmed after `timeout`; they remain on their way.
        RuntimeError: a callback of such a future calls it, and would wait for itself.
    """
    if timeout is not None:
        check_seconds("timeout", timeout, MAX_DELAY)
    await session.window.drain(timeout, session.connected)
    session.window.raise_failures()


def returning(kind: type[T], function: Callable[P, Coroutine[Any, Any, Any]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Give `function` the return type `kind`: clients of threads and of tasks have different futures."""
    return cast("Callable[P, Coroutine[Any, Any, T]]", function)
