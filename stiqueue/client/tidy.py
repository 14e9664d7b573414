"""Tidying up: `purge` and `redrive`, for every client."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
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
"""How long at most a dead letter that cannot go back lets those behind it pass."""
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

    A dead letter whose original queue refuses it stays, and so do those behind it with the same key; all others move.
    After 100 of them nothing more moves.

    Raises:
        LimitReached, InvalidRequest or AccessDenied: why the first was refused; the text says how many have moved.
    """
    options = session.options
    name = options.queue_of(queue)
    most = count_of(n)
    dead = suffixed(name, DEAD_SUFFIX)
    redriven = _Redriven(session, name, most)
    if ids is not None:
        for feed in each_feed(session, dead, ids):
            if not redriven.is_over:
                await redriven.read(feed)
    else:
        goes_on = True
        while goes_on:
            refused = len(redriven.refused)
            asked = Subscription(
                dead,
                REDRIVE_PREFETCH,
                max_messages=most and most - redriven.moved,
                wait=0.0,
                consumer=options.consumer,
                concurrency=1,
            )
            await redriven.read(Feed(session, asked))
            # Those that were refused count for the limit of a stream, so the next one may bring more.
            goes_on = most > 0 and len(redriven.refused) > refused and not redriven.is_over
    if redriven.refused:
        with suppress(StiQueueError):  # ready again at once; otherwise when the delay ends
            for feed in each_feed(session, dead, redriven.refused):
                await _put_back(session, feed)
        number, first = len(redriven.refused), next(iter(redriven.refused.values()))
        text = f"{redriven.moved} moved, {number} refused and still in {dead}; the first because: {first}"
        raise first.told_as(text, redriven.moved > 0)
    return redriven.moved


class _Redriven:
    """The dead letters that one `redrive` has read."""

    def __init__(self, session: Session[Any], queue: str, most: int) -> None:
        """Move up to `most` (0: all) dead letters of `queue`."""
        self.moved = 0
        self.refused: dict[int, StiQueueError] = {}
        """Why each that is still there was refused, by its id."""
        self._session = session
        self._queue = queue
        self._most = most

    @property
    def is_over(self) -> bool:
        """Whether no more are to move."""
        return self.moved == self._most > 0 or len(self.refused) >= MOST_REFUSED

    async def read(self, feed: Feed) -> None:
        """Move what `feed` brings."""
        try:
            while not self.is_over and (messages := await feed.next()) is not None:
                for message in messages:
                    if not self.is_over:  # after a lost stream, the next one brings as many again
                        await self._move(message)
        finally:
            await feed.leave()

    async def _move(self, message: Delivered) -> None:
        try:
            self.moved += await _revive(self._session, _revived(message, self._queue))
            self.refused.pop(message.id, None)
        except StiQueueError as error:
            if not error.is_refusal:
                raise
            self.refused[message.id] = error
            # So that those behind it come.
            await _give_back(self._session, message, REFUSED_SECONDS)


async def _put_back(session: Session[Any], feed: Feed) -> None:
    """Let the delays of the messages that `feed` brings end."""
    try:
        while (messages := await feed.next()) is not None:
            for message in messages:
                await _give_back(session, message, 0.0)
    finally:
        await feed.leave()


async def _give_back(session: Session[Any], message: Delivered, delay: float) -> None:
    back = Settlement([message.lease_id], Outcome.REQUEUE, delay, untouched=True)
    await session.connected().settle(back, session.options.timeout)


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
