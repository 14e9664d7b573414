"""A subscription that outlives restarts of the server."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from stiqueue.client.backoff import Backoff
from stiqueue.client.session import Session
from stiqueue.client.transport import Stream, Transport
from stiqueue.errors import Closed, Unavailable
from stiqueue.message import Delivered, Subscription


class Feed:
    """Reads one subscription over one stream after another, until it ends. For one thread or task."""

    def __init__(self, session: Session[Any], asked: Subscription, resumes: bool = True) -> None:
        """Ask for `asked`; nothing is opened before `next`."""
        self.session = session
        self.resumes = resumes
        """Whether a stream that was lost is followed by another one."""
        self.stream: Stream | None = None
        """The current one."""
        self.is_finished = False
        """Whether no further stream is opened."""
        self._transport: Transport | None = None
        """The transport of the current stream."""
        self._asked = asked
        self._backoff = Backoff(session.options.timeout, session.options.logger)
        self._began = 0.0
        self._forgotten = 0
        """The number of messages that the current stream has delivered without a lease."""

    async def next(self) -> Sequence[Delivered] | None:
        """Wait for the next messages; None when the subscription has ended.

        Raises:
            Unavailable: the server stayed away for the client's `timeout`.
        """
        while not self.is_finished:
            try:
                stream = self.stream or self._open()
                if self.is_finished:  # set while no stream was open
                    break
                messages = await stream.next()
                if messages is not None:
                    if not messages[0].lease_id:
                        self._forgotten += len(messages)
                    return messages
                if self._asked.no_ack or self._forgotten < self._asked.prefetch:
                    self.is_finished = True
                    return None
                # Without leases, the server ends a stream once its prefetch is used up.
                await self.leave()
                continue
            except (Closed, Unavailable) as error:
                lost = error
            failed = self.stream
            await self.leave()
            if self.is_finished or self.session.has_left(self._transport):  # by `disconnect`: no failure
                self.is_finished |= not self.resumes
                continue
            if isinstance(lost, Closed) or failed is None:
                raise lost
            if not self.resumes and await failed.connected():
                raise lost
            await self.session.pause(self._backoff, lost, failed, self._began)
        return None

    def _open(self) -> Stream:
        session = self.session
        self._began = time.monotonic()
        self._forgotten = 0
        self._transport = session.connected()
        self.stream = stream = self._transport.subscribe(self._asked)
        session.opened(stream)
        return stream

    async def leave(self) -> None:
        """End the current stream; its unsettled messages go back."""
        stream, self.stream = self.stream, None
        if stream is not None:
            self.session.ended(stream)
            stream.cancel()
