"""Dequeueing one by one: `deq` and `ack`, for every client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from stiqueue.arguments import check_kind, check_seconds
from stiqueue.client.backoff import Backoff
from stiqueue.client.holding import GONE, SETTLING, Holding
from stiqueue.client.session import M, Session
from stiqueue.client.taker import Taker
from stiqueue.client.transport import Transport
from stiqueue.errors import Closed, StiQueueError, Unavailable
from stiqueue.limits import MAX_DELAY
from stiqueue.message import Delivered, Message, Outcome, Settlement

FEW = 3
"""Up to this many threads or tasks, each acks in a request that also brings its next message. The acks of more threads
share requests."""


def next_ahead(session: Session[M], timeout: float | None, queue: str | None) -> M | None:
    """Return the next message if it is here already, sent ahead for a `deq` with these arguments; else None."""
    taker: Taker[M] | None = session.own.value
    if taker is None or not taker.leases.ahead or taker.wait != timeout:
        return None
    options, leases = session.options, taker.leases
    if leases.queue != (options.queue if queue is None else queue) or leases.is_ending or not options.auto_ack:
        return None
    taker.last = message = next(taker.messages, None)
    return message


def _take(session: Session[M], taker: Taker[M]) -> M | None:
    """Ack the last message and return the next one that is here, or None."""
    message = next(taker.messages, None)
    taker.last = message if session.options.auto_ack else None
    return message


async def deq(session: Session[M], /, timeout: float | None = None, *, queue: str | None = None) -> M | None:
    """Take the next message; wait until there is one, or return None after `timeout` seconds without.

    The message is leased to this client until it is settled: by `Message.ack` and its kin, by `ack`, and (with
    `auto_ack`) by the next `deq` of the same thread or task, by `close`, by the clean end of a ``with`` block or of the
    interpreter. It is given back to its old place at once when the process dies first, when the task that took it is
    cancelled or fails, and when nobody can settle it any more: its `Message` is gone, and (with `auto_ack`) so is its
    thread. If `Message.requeue`, `dead_letter` or `ack_and_enq` raised, the next `deq` gives it back instead of acking.

    Args:
        timeout: seconds to wait for a message; 0: take only what is ready now; default: for ever.
        queue: the queue; default: the client's.

    Raises:
        Unavailable: the server stayed away for the client's `timeout` (or for this `timeout`, if shorter).
        Closed: the client was closed meanwhile.
    """
    options = session.options
    name = options.queue_of(queue)
    if timeout is not None:
        check_seconds("timeout", timeout, MAX_DELAY)
    patience = options.timeout if timeout is None else min(timeout, options.timeout)
    backoff = Backoff(patience, options.logger)
    deadline = None if timeout is None else time.monotonic() + timeout
    wait = timeout
    while True:
        began = time.monotonic()
        transport = session.connected()
        taker, listens = None, False
        try:
            taker = await _ready(session, transport, name, wait)
            leases = taker.leases
            messages: Sequence[Delivered] | None
            if leases.ends:
                messages = await _acked(session, transport, taker, patience)
            elif (message := _take(session, taker)) is not None:
                return message
            else:
                await leases.give_back()
                messages = ()
            if not messages:
                listens = True
                messages = await leases.stream.next()
        except (Closed, Unavailable) as error:
            if taker is not None:
                await _drop(session, taker)
            if session.has_left(transport):  # by `disconnect`: no failure
                if deadline is not None and time.monotonic() >= deadline:
                    return None
            elif isinstance(error, Closed) or taker is None:
                raise
            elif listens:
                await session.pause(backoff, error, taker.leases.stream, began)
            else:  # the server has been silent since `began`, even if the stream looks connected
                session.raise_if_closed()
                await backoff.pause(error, session.interrupted, began)
            if deadline is not None:
                wait = max(0.0, deadline - time.monotonic())
            continue
        except BaseException:
            if taker is not None:
                await _drop(session, taker)
            session.raise_if_closed()
            raise
        if messages is None:
            await _drop(session, taker)
            return None
        if not leases.ends:
            leases.ahead.extend(messages)
            taker.messages = leases.each(leases.stream.holding(), finalized=True)
            if (message := _take(session, taker)) is not None:
                return message
        else:
            delivered = messages[0]
            if not listens or not delivered.lease_id or leases.stream.holding()(delivered.lease_id):
                return await _taken(session, taker, delivered)
            await _drop(session, taker)
        # The message had waited here until its lease ran out.
        if deadline is not None:
            wait = max(0.0, deadline - time.monotonic())


async def _taken(session: Session[M], taker: Taker[M], delivered: Delivered) -> M:
    """Return the one message of a stream, and note how it is acked."""
    message = taker.leases.hand_out(delivered)
    if not delivered.lease_id:
        await _drop(session, taker)
    elif session.options.auto_ack:
        taker.last = message
    else:  # the stream lives until the message is settled; the next `deq` opens another
        session.own.value = None
    return message


async def ack(session: Session[Any], /, *messages: Message) -> bool:
    """Settle messages that are done; without any, the one that this thread's or task's last `deq` returned.

    Returns:
        Whether all leases were still held. False: some had expired; those messages are or were delivered again.
    """
    if not messages:
        taker: Taker[Any] | None = session.own.value
        if taker is None or taker.last is None or taker.fate() == GONE:
            return True
        return await taker.leases.settled(taker.last, Settlement([taker.last.lease_id]))
    for each in messages:
        check_kind("messages", each, Message, "what deq() returned, one by one: ack(first, second)", "BAD_MESSAGE")
    all_held = True
    for message in messages:  # all of them, also after one that came too late
        held = message.ack()
        all_held &= held if isinstance(held, bool) else await held
    return all_held


async def _ready(session: Session[M], transport: Transport, queue: str, wait: float | None) -> Taker[M]:
    """Return this flow's taker for messages of `queue`; settle the last message first if its stream cannot be used."""
    taker: Taker[M] | None = session.own.value
    if taker is not None:
        if taker.goes_on(queue, wait):
            return taker
        if taker.leases.ends and taker.fate() == SETTLING:
            session.own.value = None  # the thread that settles it ends the stream
        else:
            try:
                await _left(session, taker)
            finally:
                await _drop(session, taker)
    options = session.options
    goes_on = options.ack_required and options.auto_ack
    prefetch = options.prefetch if goes_on else 1
    asked = options.subscription(queue, prefetch, wait, max_messages=0 if goes_on else 1, concurrency=1)
    taker = Taker(Holding(session, transport.subscribe(asked), queue, ends=prefetch == 1), wait)
    session.hold(taker.leases)
    session.own.value = taker
    return taker


async def _left(session: Session[Any], taker: Taker[Any]) -> None:
    """Settle the last message of a stream that is no longer used."""
    leases, last = taker.leases, taker.last
    fate = GONE if last is None else leases.unsettled.pop(last.lease_id, GONE)
    if last is not None and fate is None and leases.ends:
        await _ack_and_close(session, last, session.options.timeout)
    elif last is not None and fate is None:
        leases.ack_soon(last.lease_id)
    elif last is not None and fate != GONE and fate != SETTLING:
        await _give_back(session, last)
    if not leases.ends:
        await leases.quit()


async def _acked(
    session: Session[Any], transport: Transport, taker: Taker[Any], patience: float
) -> Sequence[Delivered]:
    """Ack the last message, if there is one; return the next, if the answer brings them.

    Raises:
        Unavailable: the stream may hold a message whose delivery was lost.
    """
    last, taker.last = taker.last, None
    if last is None:
        return ()
    lease_id = last.lease_id
    if taker.leases.unsettled.pop(lease_id, GONE) is not None:
        return ()
    if len(session.held) > FEW:
        taker.leases.ack_soon(lease_id)
        return ()
    began = time.monotonic()
    try:
        was_held, messages = await transport.exchange(lease_id, session.options.timeout)
    except Closed:
        raise
    except StiQueueError as error:
        # It may be acked, and the answer lost with the next message in it. Another ack harms nothing.
        await _ack_and_close(session, last, max(0.0, began + patience - time.monotonic()))
        await _give_back_unseen(session, last, max(0.0, began + patience - time.monotonic()))
        raise Unavailable(f"the subscription was given up: {error}") from error
    if not was_held:
        session.options.logger.warning("message %d was acked too late: it is delivered again", last.id)
    return messages


async def _ack_and_close(session: Session[Any], message: Message, timeout: float) -> None:
    """Ack `message` and let its stream end; try for up to `timeout` seconds.

    Raises:
        Unavailable: the server stayed away for that long.
    """
    try:
        await session.connected().settle(Settlement([message.lease_id], close_stream=True), timeout)
    except Closed:
        raise
    except StiQueueError as error:
        session.options.logger.warning("could not ack message %d, it is delivered again: %s", message.id, error)
        if isinstance(error, Unavailable):
            raise


async def _give_back_unseen(session: Session[Any], message: Message, timeout: float) -> None:
    """Give back, as untouched, the message after `message` on its stream, which the program has not seen.

    If the server does not answer, the end of the stream gives it back and counts an attempt.
    """
    settlement = Settlement([message.lease_id], Outcome.REQUEUE, close_stream=True, untouched=True)
    with suppress(StiQueueError):
        await session.connected().settle(settlement, timeout)


async def _give_back(session: Session[Any], message: Message) -> None:
    """Give back `message`, whose settlement failed. If this fails too, the end of its stream gives it back."""
    delay = session.options.retry_delay_of(message)
    try:
        await session.connected().settle(
            Settlement([message.lease_id], Outcome.REQUEUE, delay, close_stream=True), session.options.timeout
        )
    except Closed:
        raise
    except StiQueueError as error:
        session.options.logger.warning("message %d is given back without a delay: %s", message.id, error)


async def _drop(session: Session[Any], taker: Taker[Any]) -> None:
    """Forget this flow's taker; the messages of its stream go back."""
    session.own.value = None
    await taker.leases.leave()
