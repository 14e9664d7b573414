"""One connection of a browser or a proxy, which ends if it lets the console wait."""

from __future__ import annotations

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""How long a connection may take to send the head of a request, the first or a further one."""
BODY_SECONDS = 60.0
"""How long the rest of a request may take."""


class Connection(H11Protocol):
    """uvicorn's connection, with a deadline: uvicorn itself waits for ever, and its connections are limited."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Serve what comes on a connection."""
        super().__init__(*args, **kwargs)
        self._awaited: Any = None
        """The state of the other side, which one deadline holds for: further bytes do not prolong it."""
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """Begin."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read a part of a request."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """Be ready for the next request."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        super().connection_lost(exc)
        self._wait_no_longer()

    def _wait(self) -> None:
        """Set a deadline for what is to come: nothing once a request is there as a whole."""
        awaited = self.conn.their_state
        if awaited is self._awaited or self.transport.is_closing():
            return
        self._wait_no_longer()
        self._awaited = awaited
        seconds = {h11.IDLE: HEAD_SECONDS, h11.SEND_BODY: BODY_SECONDS}.get(awaited)
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self.transport.close)

    def _wait_no_longer(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
