"""The periodic work of a running server: rereads tokens and settings, checks its certificate, counts connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from stiqueue.server import descriptors
from stiqueue.server.access.certificates import Certificates
from stiqueue.server.access.guard import Guard
from stiqueue.server.queues_file import Apply, QueuesFile

TICK_SECONDS = 1.0
"""The longest time until a changed token or settings file is read again."""
COUNT_SECONDS = 10.0
"""The time between two checks of the number of connections."""
DAY_SECONDS = 86_400.0
"""The time between two checks of the certificate's expiry."""


class Upkeep:
    """The periodic work of one running server. Not thread-safe: used by its event loop."""

    def __init__(
        self,
        logger: logging.Logger,
        port: int,
        most_connections: int,
        guard: Guard | None = None,
        certificates: Certificates | None = None,
        queues: tuple[QueuesFile, Apply] | None = None,
    ) -> None:
        """Serve the server at `port`; `queues` is the settings file and the function that applies it."""
        self._logger = logger
        self._port, self._most = port, most_connections
        self._guard, self._certificates = guard, certificates
        self._queues = queues
        self._is_full = False
        self._count_at = time.monotonic()
        self._certificate_at = self._count_at + DAY_SECONDS

    async def until(self, stop: asyncio.Event, revoke: Callable[[], None]) -> None:
        """Do the work every `TICK_SECONDS` until `stop` is set; call `revoke` when the tokens have changed."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)
                return
            self.tick(time.monotonic(), revoke)

    def tick(self, now: float, revoke: Callable[[], None]) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        if self._guard is not None and self._guard.tokens.refresh():
            revoke()
        if self._queues is not None:
            file, apply = self._queues
            file.refresh(apply)
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            self._look_at_connections()
        if self._certificates is not None and now >= self._certificate_at:
            self._certificate_at = now + DAY_SECONDS
            self._certificates.warn_of_end()

    def _look_at_connections(self) -> None:
        """Warn once when the limit is reached: gRPC closes further connections silently."""
        # Few descriptors are few connections, and quickly counted.
        is_full = (descriptors.count_open() or 0) >= self._most
        is_full = is_full and (descriptors.count_connections(self._port) or 0) >= self._most
        if is_full and not self._is_full:
            self._logger.warning(
                "there are %s connections, the limit (max_connections, and file descriptors by ulimit -n); "
                "new ones are closed",
                f"{self._most:,}",
            )
        self._is_full = is_full
