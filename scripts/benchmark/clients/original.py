"""The original StiQueue 1.3.2 by its own client, in an environment of its own."""

from __future__ import annotations

import logging

from benchmark.clients.base import Client
from stiqueue import SQClient


class OriginalClient(Client):
    """A connection for each call, as that client does it. Its `enq` is not confirmed: it returns when sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        logger = logging.getLogger("original")
        logger.addHandler(logging.NullHandler())
        logger.setLevel(logging.ERROR)
        self._client = SQClient(port=port, logger=logger)

    def enq(self, body: bytes) -> None:
        self._client.enq(body)

    def deq(self) -> bytes:
        message: bytes = self._client.deq()  # type: ignore[assignment, unused-ignore]
        return message

    def for_thread(self) -> Client:
        return OriginalClient(self._port)

    def clear(self) -> None:
        while int(self._client.cnt() or b"0"):
            self._client.deq()
