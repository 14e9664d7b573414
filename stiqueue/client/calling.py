"""Asking and waiting for the answer: `call`, for every client."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping
from functools import partial

from stiqueue.arguments import check_kind, check_seconds
from stiqueue.client.answers import Answers
from stiqueue.client.backoff import Patience
from stiqueue.client.enqueue import batch_of, body_of, enq_batch
from stiqueue.client.session import M, Session
from stiqueue.errors import RemoteError
from stiqueue.limits import MAX_DELAY, check_properties
from stiqueue.message import CORRELATION_HEADER, ERROR_HEADER, REPLY_TO_HEADER, Body


async def call(
    session: Session[M],
    /,
    msg: Body,
    *,
    queue: str | None = None,
    priority: int = 0,
    headers: Mapping[str, str] | None = None,
    request_id: str | None = None,
    timeout: float | None = None,
) -> M:
    """Enqueue a request, wait for a worker's answer, and return it.

    A worker answers by `Message.reply`; a `Worker` does so with what its handler returns. A worker that dies before
    that lets another one answer. When the time is up, the request is dropped, if nobody has taken it yet; a late answer
    is dropped as well.

    Args:
        msg: the body of the request; text is sent as UTF-8.
        queue: the queue of the workers; default: the client's.
        priority: 0..255; higher is delivered first.
        headers: at most 62, 8 KiB in all with those that the call adds.
        request_id: a name for this request; a call to the same queue that is repeated under it within 5 minutes, by the
            same client, waits for the answer to the first one. Default: a new one.
        timeout: seconds to wait for the answer, more than 0; default: the client's.

    Returns:
        The answer, with its headers. There is nothing to settle.

    Raises:
        RemoteError: the worker answered with an error; has its `type` and `text`.
        NoAnswer: no answer came in time, or the client may not read it; a worker may have done the work.
        QueueFull: there is no room for the request.
        Unavailable: the server stayed away for `timeout`.
        InvalidRequest: a value is out of range.
    """
    seconds = session.options.timeout_of(timeout)
    check_seconds("timeout", seconds, MAX_DELAY, positive=True)
    patience = Patience.of(seconds)
    if headers is not None:
        check_kind("headers", headers, Mapping, 'a dict such as {"n": "1"}', "BAD_HEADERS")
    name = session.options.queue_of(queue)
    request_id = request_id or uuid.uuid4().hex
    # Not the request id alone: that tells apart what is asked of one queue.
    correlation_id = hashlib.blake2b(f"{name} {request_id}".encode(), digest_size=16).hexdigest()
    session.connected()  # now, because what follows belongs to the connection
    answers = session.answers_of(partial(Answers, session))
    extended = {**(headers or {}), REPLY_TO_HEADER: answers.queue, CORRELATION_HEADER: correlation_id}
    batch = batch_of(session, [body_of(msg)], queue, priority, 0.0, seconds, extended, request_id)
    check_properties(batch)
    with answers.expecting(session, correlation_id) as waiter:
        await enq_batch(session, batch, patience.seconds)
        answer = await waiter.wait(patience.left)
    if ERROR_HEADER in answer.headers:
        raise RemoteError(answer.headers[ERROR_HEADER], answer.body.decode(errors="replace"))
    return session.message.wrap(answer, answers.queue, None)
