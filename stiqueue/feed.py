"""A subscription that outlives restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stiqueue.backoff import Backoff
from stiqueue.errors import Unavailable
from stiqueue.message import Delivered, Subscription
from stiqueue.session import Session
from stiqueue.transport import Stream


class Feed:
    """What a subscription delivers until it ends, over one stream after another. For one thread or task."""

    def __init__(self, session: Session[Any], asked: Subscription) -> None:
        """Ask for `asked`; nothing is opened before `next`."""
        self.session = session
        self.stream: Stream | None = None
        """The current one."""
        self.is_finished = False
        """Whether no further stream is opened."""
        self._asked = asked
        self._backoff = Backoff(session.options.timeout, session.options.logger)
        self._began = 0.0
        self._forgotten = 0
        """How many messages the current stream has delivered without a lease."""

    async def next(self) -> Sequence[Delivered] | None:
        """Wait for the next messages; None when the subscription has ended.

        Raises:
            Unavailable: the server stayed away for the client's `timeout`.
        """
        while not self.is_finished:
            stream = self.stream or self._open()
            if self.is_finished:  # meanwhile, when there was no stream yet that could have been told
                break
            try:
                messages = await stream.next()
                if messages is not None:
                    if not messages[0].lease_id:
                        self._forgotten += len(messages)
                    return messages
                if self._asked.no_ack or self._forgotten < self._asked.prefetch:
                    self.is_finished = True
                    return None
                # A server that forgets what it sends ends a stream whose prefetch is used up.
                await self.leave()
                continue
            except Unavailable as error:
                lost = error
            await self.leave()
            if not self.is_finished:
                await self.session.pause(self._backoff, lost, stream, self._began)
        return None

    def _open(self) -> Stream:
        session = self.session
        self._began = time.monotonic()
        self._forgotten = 0
        self.stream = stream = session.connected().subscribe(self._asked)
        with session.lock:
            session.streams.add(stream)
        return stream

    async def leave(self) -> None:
        """End the current stream; what is unsettled goes back."""
        stream, self.stream = self.stream, None
        if stream is not None:
            with self.session.lock:
                self.session.streams.discard(stream)
            stream.cancel()
