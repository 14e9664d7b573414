"""The client that acts for people who look at a console."""

from __future__ import annotations

from typing import Any

from stiqueue.aio import AsyncSQClient
from stiqueue.client.enqueue import HAND_OVER_OPTIONS, batch_of, body_of, enq_batch
from stiqueue.message import Body, Receipt


class ConsoleClient(AsyncSQClient):
    """`AsyncSQClient`, which tells people also that a message was there already."""

    async def enq_told(self, msg: Body, **options: Any) -> Receipt:
        """Enqueue one message with the options of `enq`; return the server's whole answer."""
        batch = batch_of(self._session, [body_of(msg)], **HAND_OVER_OPTIONS | options)
        return await enq_batch(self._session, batch, self._session.options.timeout)
