"""The client of nats-py, with a short way for what comes and goes with every message of a queue.

It stands on methods of nats-py that are its own. If it stops calling those that are overridden, all works as before, at
its own speed: what has a short way has the usual one as well.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Interest
from nats.errors import ConnectionClosedError, OutboundBufferLimitError

from stiqueue.engines.jetstream.envelope import OURS

_OURS = OURS.encode() + b":"

Hear = Callable[[Msg], None]


class QuickClient(Client):
    """Hands messages over where they are read, instead of by a queue and a task for each subscription."""

    def __init__(self, logger: logging.Logger) -> None:
        """Describe a client that is not connected."""
        super().__init__()
        self._logger = logger
        self._quick: dict[int, Hear] = {}

    async def subscribe_quickly(self, subject: str, hear: Hear) -> Interest:
        """Call `hear` with each message on `subject`; those with a body have headers only if we wrote some."""

        async def usual_way(message: Msg) -> None:
            hear(message)

        interest = await self.subscribe(subject, cb=usual_way, pending_msgs_limit=0, pending_bytes_limit=0)
        self._quick[interest._id] = hear
        return interest

    async def stop(self, interest: Interest) -> None:
        """Ask the server for no more messages; those that are on their way are still heard."""
        await self._send_unsubscribe(interest._id)

    def open_requests(self) -> list[asyncio.Future[Msg]]:
        """Return the requests that wait for their answers."""
        return list(self._resp_map.values())

    async def publish_many(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Publish all of `messages`, each a subject, a body and where to answer, in one step.

        Raises:
            nats.errors.Error: nothing is sent.
        """
        command = b"".join(
            b"PUB %b %b %d\r\n%b\r\n" % (subject.encode(), reply.encode(), len(body), body)
            for subject, body, reply in messages
        )
        if self.is_closed:
            raise ConnectionClosedError
        if not self.is_connected and len(command) + self._pending_data_size > self._max_pending_size:
            raise OutboundBufferLimitError
        await self._send_command(command)
        await self._flush_pending()

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        hear = self._quick.get(sid)
        if hear is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        read = await self._process_headers(headers) if headers and (not data or _OURS in headers) else None
        try:
            hear(self._build_message(sid, subject, reply, data, read))
        except Exception:  # it must not end the reading
            self._logger.exception("a defect in the gateway")

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._quick.pop(sid, None)
        super()._remove_sub(sid, max_msgs)
