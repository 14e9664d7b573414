"""Dequeueing in a loop: what is inside `consume`, for every client."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any, Generic

from stiqueue.concurrency import Signal
from stiqueue.enqueueing import enq_and_ack
from stiqueue.errors import StiQueueError
from stiqueue.feed import Feed
from stiqueue.limits import MAX_ACK_TIMEOUT
from stiqueue.message import Body, Delivered, Message, Outcome, Settlement
from stiqueue.session import CLOSE_SECONDS, M, Session
from stiqueue.transport import Stream

FLUSH_SECONDS = 10.0
"""How long the end of a stream waits for its last acks to be answered."""


class Loop(Feed, Generic[M]):
    """One `consume`: its messages, each acked when the next one is asked for. For one thread or task."""

    def __init__(self, session: Session[M], prefetch: int, timeout: float | None, queue: str | None) -> None:
        """Describe the loop; nothing is opened before its first message is asked for."""
        self._queue = session.options.queue_of(queue)
        super().__init__(session, session.options.subscription(self._queue, prefetch, timeout))
        self._settled_by_hand: set[str] = set()
        self._acked = 0
        """How many acks were begun. Used by the loop's thread alone."""
        self._lock = threading.Lock()
        """Guards the two below."""
        self._answered = 0
        self._flushing: Signal | None = None
        """Set when `_answered` has come to `_acked`; there while the loop waits for that."""

    async def messages(self) -> Iterator[M] | None:
        """Wait for the next messages; iterating over them acks each when the next one is asked for."""
        batch = await self.next()
        return None if batch is None else self._each(batch)

    def _each(self, batch: Sequence[Delivered]) -> Iterator[M]:
        session, stream, queue, by_hand = self.session, self.stream, self._queue, self._settled_by_hand
        wrap, auto_ack, ack = session.message.wrap, session.options.auto_ack, session.connected().ack_soon

        def done(lease_ids: list[str], stale: list[str] | StiQueueError) -> None:
            self._ack_answered(stream, lease_ids, stale)

        for delivered in batch:
            yield wrap(delivered, queue, self)
            if not auto_ack or not (lease_id := delivered.lease_id):
                continue
            if lease_id in by_hand:
                by_hand.discard(lease_id)
            else:
                self._acked += 1
                ack(lease_id, done)

    def _ack_answered(self, stream: Stream | None, lease_ids: list[str], stale: list[str] | StiQueueError) -> None:
        logger = self.session.options.logger
        if isinstance(stale, StiQueueError):
            # Not acked: end the stream, so that the loop subscribes anew and gets these messages again.
            logger.warning("could not ack %d messages, they are delivered again: %s", len(lease_ids), stale)
            if stream is not None:
                stream.cancel()
        elif stale:
            logger.warning("%d messages were acked too late: they are delivered again", len(stale))
        with self._lock:
            self._answered += len(lease_ids)
            if self._flushing is not None and self._answered >= self._acked:
                self._flushing.set()

    async def leave(self) -> None:
        """End the current stream once its acks are answered; what is unsettled goes back."""
        flushed = self.session.concurrency.signal()
        with self._lock:
            self._flushing = flushed if self._answered < self._acked else None
        try:
            if self._flushing is not None:
                await flushed.wait(FLUSH_SECONDS)
        finally:
            await super().leave()

    async def finish(self, held: Sequence[str]) -> None:
        """Take no further message; `messages` returns None once those of the leases `held` are settled."""
        self.is_finished = True
        stream, options = self.stream, self.session.options
        if held:
            # An extension that ends the stream once it holds nothing. There is no other way to say it so early.
            seconds = options.ack_timeout or MAX_ACK_TIMEOUT
            ending = Settlement(held, Outcome.EXTEND, seconds, close_stream=True)
            try:
                if len(await self.session.connected().settle(ending, min(options.timeout, CLOSE_SECONDS))) < len(held):
                    return
            except StiQueueError as error:
                options.logger.warning("%d messages are delivered again: %s", len(held), error)
        if stream is not None:
            stream.cancel()

    def settle(self, message: Message, settlement: Settlement) -> Any:
        """Settle `message` by hand."""
        return self.session.concurrency.run(self._settle(message, settlement))

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        """Ack `message` and enqueue `msg` in one step."""
        return self.session.concurrency.run(self._hand_over(message, msg, **options))

    def retry_delay(self, message: Message) -> float:
        """Return the client's back-off for `message`."""
        return self.session.options.retry_delay_of(message)

    async def _settle(self, message: Message, settlement: Settlement) -> bool:
        if not message.lease_id:
            return False  # delivered with no_ack: the server has forgotten it
        if settlement.outcome is not Outcome.EXTEND and self.session.options.auto_ack:
            self._settled_by_hand.add(message.lease_id)
        held = not await self.session.connected().settle(settlement, self.session.options.timeout)
        message._is_settled |= held and settlement.outcome is not Outcome.EXTEND
        return held

    async def _hand_over(self, message: Message, msg: Body, **options: Any) -> int:
        new_id = await enq_and_ack(self.session, msg, message, **options)
        message._is_settled = True
        if self.session.options.auto_ack:
            self._settled_by_hand.add(message.lease_id)
        return new_id
