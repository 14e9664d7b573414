"""The client of nats-py, with a shortcut for the traffic of every message.

It overrides private methods of nats-py. If a new version of nats-py stops calling them, everything still works, only
slower: whatever takes the shortcut can also take the normal path.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Interest
from nats.errors import ConnectionClosedError, Error, OutboundBufferLimitError

from stiqueue.engines.jetstream.envelope import OURS

_OURS = OURS.encode() + b":"

Hear = Callable[[Msg], None]


class QuickClient(Client):
    """Calls handlers directly from the read loop, without a queue and a task per subscription."""

    def __init__(self, logger: logging.Logger, needs_tls: bool = False) -> None:
        """Create a client without connecting it; `needs_tls`: only to servers with TLS."""
        super().__init__()
        self._logger = logger
        self._needs_tls = needs_tls
        self._quick: dict[int, Hear] = {}

    async def subscribe_quickly(self, subject: str, hear: Hear) -> Interest:
        """Call `hear` with each message on `subject`; a message with a body has only headers written by StiQueue."""

        async def usual_way(message: Msg) -> None:
            hear(message)

        interest = await self.subscribe(subject, cb=usual_way, pending_msgs_limit=0, pending_bytes_limit=0)
        self._quick[interest._id] = hear
        return interest

    async def stop(self, interest: Interest) -> None:
        """Unsubscribe; messages already on their way are still handled."""
        await self._send_unsubscribe(interest._id)

    def _connect_command(self) -> bytes:
        # Before it is sent, for it has the password; nats-py would go on in clear with a server that offers no TLS.
        if self._needs_tls and not self._server_info.get("tls_required"):
            raise Error("the server has no TLS, but the address says tls://")
        return super()._connect_command()

    def open_requests(self) -> list[asyncio.Future[Msg]]:
        """Return the requests without an answer."""
        return list(self._resp_map.values())

    async def publish_many(self, messages: Iterable[tuple[str, bytes, str]]) -> None:
        """Publish all of `messages` in one write; each is a subject, a body and a reply subject.

        Raises:
            nats.errors.Error: nothing was sent.
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
        except Exception:  # must not end the read loop
            self._logger.exception("a defect in the gateway")

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._quick.pop(sid, None)
        super()._remove_sub(sid, max_msgs)
