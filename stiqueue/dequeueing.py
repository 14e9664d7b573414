"""Dequeueing one by one: `deq` and `ack`, for every client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stiqueue.backoff import Backoff
from stiqueue.enqueueing import enq_and_ack
from stiqueue.errors import Closed, LeaseStale, StiQueueError, Unavailable
from stiqueue.limits import MAX_ACK_TIMEOUT
from stiqueue.message import Body, Delivered, Message, Outcome, Settlement
from stiqueue.session import M, Session
from stiqueue.transport import Stream

FEW = 3
"""Up to so many threads or tasks each ack in a call that brings the next message as well: one call a message. The acks
of more of them travel together, several in a call."""


class Slot:
    """The `deq` of one thread or task: its stream, and the message whose lease the stream holds."""

    __slots__ = ("_session", "message", "stream", "wait")

    def __init__(self, session: Session[Any], stream: Stream, wait: float | None) -> None:
        self._session = session
        self.stream = stream
        self.wait = wait
        self.message: Message | None = None
        """The message that is not settled yet. Guarded by the session's lock."""

    def settle(self, message: Message, settlement: Settlement) -> Any:
        """Settle `message` and let the stream end: nothing more is delivered until the next `deq`."""
        return self._session.concurrency.run(self._settle(settlement))

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        """Ack `message` and enqueue `msg` in one step, and let the stream end."""
        return self._session.concurrency.run(self._hand_over(message, msg, **options))

    def retry_delay(self, message: Message) -> float:
        """Return the client's back-off for `message`."""
        return self._session.options.retry_delay_of(message)

    async def _settle(self, settlement: Settlement) -> bool:
        ends = settlement.outcome is not Outcome.EXTEND
        session = self._session
        stale = await session.connected().settle(settlement._replace(close_stream=ends), session.options.timeout)
        if ends:
            self._retire()
        return not stale

    async def _hand_over(self, message: Message, msg: Body, **options: Any) -> int:
        session = self._session
        # The stream must not be given another message by this ack, so it is told first to end after this one.
        seconds = session.options.ack_timeout or MAX_ACK_TIMEOUT
        ending = Settlement([message.lease_id], Outcome.EXTEND, seconds, close_stream=True)
        if await session.connected().settle(ending, session.options.timeout):
            raise LeaseStale(f"message {message.id} of {message.queue} is no longer held")
        new_id = await enq_and_ack(session, msg, message, **options)
        self._retire()
        return new_id

    def _retire(self) -> None:
        with self._session.lock:
            self.message = None
        self._session.drop(self)


class _Forgotten:
    """Holds messages that the server forgot as it sent them: there is nothing to settle."""

    def __init__(self, session: Session[Any]) -> None:
        self._session = session

    def settle(self, message: Message, settlement: Settlement) -> Any:
        return self._session.concurrency.run(self._settle())

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        raise LeaseStale("the message was delivered without a lease (ack_required=False)")

    def retry_delay(self, message: Message) -> float:
        return 0.0

    async def _settle(self) -> bool:
        return False


async def deq(session: Session[M], /, timeout: float | None = None, *, queue: str | None = None) -> M | None:
    """Take the next message; wait until there is one, or return None after `timeout` seconds without.

    The message is leased to this client until it is settled: by `Message.ack` and its kin, by `ack`, and (with
    `auto_ack`) by the next `deq` of the same thread or task, by `close`, by the clean end of a ``with`` block or of the
    interpreter. When the process dies first, it is given back to its old place at once; so it is when the task that
    took it is cancelled or fails.

    Args:
        timeout: seconds to wait for a message; 0: take only what is ready now; default: for ever.
        queue: the queue; default: the client's.

    Raises:
        Unavailable: the server stayed away for the client's `timeout` (or for this `timeout`, if shorter).
        Closed: the client was closed meanwhile.
    """
    options = session.options
    name = options.queue_of(queue)
    patience = options.timeout if timeout is None else min(timeout, options.timeout)
    backoff = Backoff(patience, options.logger)
    deadline = None if timeout is None else time.monotonic() + timeout
    wait = timeout
    while True:
        began = time.monotonic()
        slot, last = await _ready_slot(session, name, wait)
        try:
            messages = await _next(session, slot, last, patience)
        except Unavailable as error:
            _drop(session, slot)
            await session.pause(backoff, error, slot.stream, began)
            if deadline is not None:
                wait = max(0.0, deadline - time.monotonic())
            continue
        except BaseException:
            _drop(session, slot)
            session.raise_if_closed()
            raise
        if messages is None:
            _drop(session, slot)
            return None
        if not messages[0].lease_id:
            _drop(session, slot)
            return session.message.wrap(messages[0], name, _Forgotten(session))
        slot.message = message = session.message.wrap(messages[0], name, slot)
        if not options.auto_ack:
            # Its stream lives until it is settled; the next `deq` opens another.
            session.own.value = None
        return message


async def ack(session: Session[Any], /, *messages: Message) -> bool:
    """Settle messages that are done; without any, the one that this thread's or task's last `deq` returned.

    Returns:
        Whether all leases were still held. False: some had expired; those messages are or were delivered again.
    """
    if not messages:
        slot: Slot | None = session.own.value
        if slot is None or slot.message is None:
            return True
        return await slot._settle(Settlement([slot.message.lease_id]))
    all_held = True
    for message in messages:  # all of them, also after one that came too late
        held = message.ack()
        all_held &= held if isinstance(held, bool) else await held
    return all_held


async def _ready_slot(session: Session[Any], queue: str, wait: float | None) -> tuple[Slot, Message | None]:
    """Return this flow's slot with a stream, and the message that must be acked before that is given another."""
    transport = session.connected()
    slot: Slot | None = session.own.value
    if slot is not None:
        with session.lock:
            last, slot.message = slot.message, None
        if last is not None and slot.wait == wait and last.queue == queue:
            return slot, last
        if last is not None:
            await _ack_and_close(session, last, session.options.timeout)
        _drop(session, slot)
    single = not (session.options.ack_required and session.options.auto_ack)
    asked = session.options.subscription(queue, wait=wait, max_messages=1 if single else 0)
    slot = Slot(session, transport.subscribe(asked), wait)
    session.own.value = slot
    with session.lock:
        session.held.add(slot)
    return slot, None


async def _next(session: Session[Any], slot: Slot, last: Message | None, patience: float) -> Sequence[Delivered] | None:
    """Ack the `last` message, if there is one, and wait for the next.

    Raises:
        Unavailable: the stream is lost, or may hold a message whose delivery was lost.
    """
    if last is not None and len(session.held) > FEW:
        _ack_soon(session, last, slot)
    elif last is not None:
        try:
            was_held, messages = await session.connected().exchange(last.lease_id)
        except Closed:
            raise
        except StiQueueError as error:
            # Perhaps it was acked, and the answer lost with the next message in it. An ack more harms nothing.
            await _ack_and_close(session, last, patience)
            raise Unavailable(f"the subscription was given up: {error}") from error
        if not was_held:
            _acked_too_late(session, last)
        if messages:
            return messages
    return await slot.stream.next()


async def _ack_and_close(session: Session[Any], message: Message, timeout: float) -> None:
    """Ack `message`, whose stream is given nothing more; try for up to `timeout` seconds."""
    try:
        await session.connected().settle(Settlement([message.lease_id], close_stream=True), timeout)
    except Closed:
        raise
    except StiQueueError as error:
        _not_acked(session, message, error)


def _ack_soon(session: Session[Any], message: Message, slot: Slot) -> None:
    """Ack `message` while the next is waited for."""

    def done(_: list[str], stale: list[str] | StiQueueError) -> None:
        if isinstance(stale, StiQueueError):
            # Not acked, so the stream would never be given another message: let `deq` open a new one.
            _not_acked(session, message, stale)
            slot.stream.cancel()
        elif stale:
            _acked_too_late(session, message)

    session.connected().ack_soon(message.lease_id, done)


def _not_acked(session: Session[Any], message: Message, error: StiQueueError) -> None:
    session.options.logger.warning("could not ack message %d, it is delivered again: %s", message.id, error)


def _acked_too_late(session: Session[Any], message: Message) -> None:
    session.options.logger.warning("message %d was acked too late: it is delivered again", message.id)


def _drop(session: Session[Any], slot: Slot) -> None:
    """Forget this flow's slot; what its stream holds goes back."""
    session.own.value = None
    session.drop(slot)
