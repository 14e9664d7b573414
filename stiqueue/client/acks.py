"""The acks of one stream in the background."""

from __future__ import annotations

import threading
from typing import Any

from stiqueue.client.session import Session
from stiqueue.client.transport import Stream
from stiqueue.client.waiting.concurrency import Signal
from stiqueue.errors import StiQueueError

FLUSH_SECONDS = 10.0
"""How long the end of a stream waits for the answers to its last acks."""


class Acks:
    """Counts the acks of one stream in the background, and ends the stream when one fails. Thread-safe."""

    def __init__(self, session: Session[Any], stream: Stream) -> None:
        """Begin without any."""
        self._session = session
        self._stream = stream
        self.begun = 0
        """How many were begun. Only the flow that reads the stream changes it."""
        self._lock = threading.Lock()
        """Protects the two below."""
        self._answered = 0
        self._flushing: Signal | None = None
        """Set once every ack is answered; None unless `flush` is waiting."""

    def answered(self, lease_ids: list[str], stale: list[str] | StiQueueError) -> None:
        """Note an answer, see `Acked`."""
        logger = self._session.options.logger
        if isinstance(stale, StiQueueError):
            # They count against the stream's credit until it ends; a new stream gets these messages again.
            logger.warning("could not ack %d messages, they are delivered again: %s", len(lease_ids), stale)
            self._stream.cancel()
        elif stale:
            logger.warning("%d messages were acked too late: they are delivered again", len(stale))
        with self._lock:
            self._answered += len(lease_ids)
            if self._flushing is not None and self._answered >= self.begun:
                self._flushing.set()
                self._flushing = None

    async def flush(self, seconds: float = FLUSH_SECONDS) -> None:
        """Wait until every ack is answered, for up to `seconds`."""
        if self._answered >= self.begun:
            return
        with self._lock:
            if self._answered >= self.begun:
                return
            # The loop and whoever closes the client may both wait.
            flushing = self._flushing = self._flushing or self._session.concurrency.signal()
        await flushing.wait(seconds)
