"""What the server logs with `debug`: every message in and out, by queue, consumer and message id."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stiqueue.entry import Leased
from stiqueue.message import Batch, Outcome, Subscription

SHOWN_BODY_BYTES = 80
"""How much of a body is logged."""


class Held(NamedTuple):
    """What a lease is of."""

    queue: str
    message_id: int
    consumer: str


class MessageLog:
    """Logs messages, if anybody wants to know. Used by the event loop alone."""

    def __init__(self, logger: logging.Logger) -> None:
        """Log to `logger`."""
        self.logger = logger
        self._held: dict[str, Held] = {}
        """By lease, so that an ack tells of its message. Filled only while `is_on`."""

    @property
    def is_on(self) -> bool:
        """Whether anybody wants to know."""
        return self.logger.isEnabledFor(logging.DEBUG)

    def enqueued(self, batch: Batch, first_id: int) -> None:
        """Messages have come."""
        for number, body in enumerate(batch.bodies):
            self._message("enq", batch.queue, first_id + number, body)

    def came(self, asked: Subscription) -> StreamLog:
        """There is a new consumer; return what logs of it."""
        return StreamLog(self, asked)

    def holds(self, lease_ids: Sequence[str]) -> dict[str, Held | None]:
        """Return what leases are of, while they are held; None: it is stale, or older than the wish to know."""
        return {lease_id: self._held.get(lease_id) for lease_id in lease_ids}

    def settled(self, outcome: Outcome, found: dict[str, Held | None], stale: Iterable[str] = ()) -> None:
        """Leases of which `holds` has `found` the messages were settled, but for those that were `stale`."""
        late, what = frozenset(stale), outcome.name.lower()
        for lease_id, held in found.items():
            if lease_id in late or outcome is not Outcome.EXTEND:
                self._held.pop(lease_id, None)
            how = ": too late" if lease_id in late else ""
            if held is None:
                self.logger.debug("%s of a lease that is not known%s", what, how)
            else:
                self.logger.debug("%s %s #%d%s", what, held.queue, held.message_id, how, extra=held._asdict())

    def _message(self, what: str, queue: str, message_id: int, body: bytes, **more: str) -> None:
        shown = body if len(body) <= SHOWN_BODY_BYTES else body[:SHOWN_BODY_BYTES] + b"..."
        extra = {"queue": queue, "message_id": message_id, **more}
        self.logger.debug("%s %s #%d %r (%d bytes)", what, queue, message_id, shown, len(body), extra=extra)


class StreamLog:
    """Logs of one consumer."""

    def __init__(self, log: MessageLog, asked: Subscription) -> None:
        """It has `asked` for messages."""
        self._log = log
        self._asked = asked
        self._lease_ids: list[str] = []
        self._say("came")

    def delivered(self, messages: Iterable[Leased]) -> None:
        """Messages are sent to it."""
        queue, consumer = self._asked.queue, self._asked.consumer
        for leased in messages:
            if leased.lease_id:
                self._log._held[leased.lease_id] = Held(queue, leased.entry.id, consumer)
                self._lease_ids.append(leased.lease_id)
            self._log._message("deq", queue, leased.entry.id, leased.entry.body, consumer=consumer)

    def left(self) -> None:
        """Its stream has ended; what it held goes back."""
        for lease_id in self._lease_ids:
            self._log._held.pop(lease_id, None)
        self._say("left")

    def _say(self, what: str) -> None:
        queue, consumer = self._asked.queue, self._asked.consumer
        extra = {"queue": queue, "consumer": consumer}
        self._log.logger.debug("consumer %r of %s: %s", consumer, queue, what, extra=extra)
