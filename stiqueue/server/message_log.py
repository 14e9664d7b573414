"""The log of messages, with `debug`: every message in and out, by queue, consumer and message id."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from stiqueue.message import Batch, Outcome, Subscription
from stiqueue.rules.entry import Leased

SHOWN_BODY_BYTES = 80
"""Longer bodies are cut to this length."""


class LoggedLease(NamedTuple):
    """The message of a lease, and the stream that holds it."""

    message_id: int
    stream: StreamLog


class MessageLog:
    """Logs messages if the logger's level is DEBUG. Not thread-safe: used by the event loop."""

    def __init__(self, logger: logging.Logger) -> None:
        """Log to `logger`."""
        self.logger = logger
        self._held: dict[str, LoggedLease] = {}
        """By lease id, so that the line of an ack can name its message. Filled only while `is_on`."""

    @property
    def is_on(self) -> bool:
        """Whether messages are logged."""
        return self.logger.isEnabledFor(logging.DEBUG)

    def enqueued(self, batch: Batch, first_id: int) -> None:
        """Log new messages."""
        for number, body in enumerate(batch.bodies):
            self._message("enq", first_id + number, body, {"queue": batch.queue})

    def came(self, asked: Subscription) -> StreamLog:
        """Log a new consumer; return its log."""
        return StreamLog(self, asked)

    def holds(self, lease_ids: Sequence[str]) -> dict[str, LoggedLease | None]:
        """Return the message of each held lease; None: the lease is stale, or older than the logging."""
        return {lease_id: self._held.get(lease_id) for lease_id in lease_ids}

    def settled(self, outcome: Outcome, found: dict[str, LoggedLease | None], stale: Iterable[str] = ()) -> None:
        """Log settled leases. `found` is the result of `holds`; leases in `stale` were not settled."""
        late, what = frozenset(stale), outcome.name.lower()
        for lease_id, held in found.items():
            if lease_id in late or outcome is not Outcome.EXTEND:
                self._held.pop(lease_id, None)
            how = ": too late" if lease_id in late else ""
            if held is None:
                self.logger.debug("%s of a lease that is not known%s", what, how)
            else:
                extra = {"message_id": held.message_id, **held.stream.extra}
                self.logger.debug("%s %s #%d%s", what, extra["queue"], held.message_id, how, extra=extra)

    def exchanged(self, found: dict[str, LoggedLease | None], given: Sequence[Leased] | None) -> None:
        """Log an ack that also took the next messages, `given`; None: the ack was too late."""
        self.settled(Outcome.ACK, found, found if given is None else ())
        for held in found.values():
            if held is not None and given:
                held.stream.delivered(given)

    def _message(self, what: str, message_id: int, body: bytes, extra: dict[str, str]) -> None:
        shown = body if len(body) <= SHOWN_BODY_BYTES else body[:SHOWN_BODY_BYTES] + b"..."
        told = {"message_id": message_id, **extra}
        self.logger.debug("%s %s #%d %r (%d bytes)", what, extra["queue"], message_id, shown, len(body), extra=told)


class StreamLog:
    """The log of one consumer."""

    def __init__(self, log: MessageLog, asked: Subscription) -> None:
        """Log that a consumer `asked` for messages."""
        self._log = log
        self.extra = {"queue": asked.queue, "consumer": asked.consumer}
        """The extra fields of each line."""
        self._lease_ids: list[str] = []
        self._say("came")

    def delivered(self, messages: Iterable[Leased]) -> None:
        """Log messages sent to the consumer."""
        for leased in messages:
            if leased.lease_id:
                self._log._held[leased.lease_id] = LoggedLease(leased.entry.id, self)
                self._lease_ids.append(leased.lease_id)
            self._log._message("deq", leased.entry.id, leased.entry.body, self.extra)

    def left(self) -> None:
        """Log that the stream has ended, and forget its leases."""
        for lease_id in self._lease_ids:
            self._log._held.pop(lease_id, None)
        self._say("left")

    def _say(self, what: str) -> None:
        queue, consumer = self.extra["queue"], self.extra["consumer"]
        self._log.logger.debug("consumer %r of %s: %s", consumer, queue, what, extra=self.extra)
