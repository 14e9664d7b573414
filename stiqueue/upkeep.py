"""What a server looks after while it serves, beside calls: tokens, its certificate, how many connections there are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

from stiqueue import descriptors
from stiqueue.certificates import Certificates
from stiqueue.guard import Guard

TICK_SECONDS = 1.0
"""How long after the file of tokens has changed it is read again, at the most."""
COUNT_SECONDS = 10.0
"""How long it may go unnoticed that there are as many connections as there may be."""
DAY_SECONDS = 86_400.0
"""How often a certificate's end is looked at."""


class Upkeep:
    """Looks after one running server. Used by its event loop alone."""

    def __init__(
        self,
        logger: logging.Logger,
        port: int,
        most_connections: int,
        guard: Guard | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        """Look after the server at `port`."""
        self._logger = logger
        self._port, self._most = port, most_connections
        self._guard, self._certificates = guard, certificates
        self._is_full = False
        self._count_at = time.monotonic()
        self._certificate_at = self._count_at + DAY_SECONDS

    async def until(self, stop: asyncio.Event, revoke: Callable[[], None]) -> None:
        """Look around until `stop`; call `revoke` when tokens were taken away."""
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(stop.wait(), TICK_SECONDS)
                return
            self.tick(time.monotonic(), revoke)

    def tick(self, now: float, revoke: Callable[[], None]) -> None:
        """Do what is due at `now`, in seconds of the monotonic clock."""
        if self._guard is not None and self._guard.tokens.refresh():
            revoke()
        if now >= self._count_at:
            self._count_at = now + COUNT_SECONDS
            self._look_at_connections()
        if self._certificates is not None and now >= self._certificate_at:
            self._certificate_at = now + DAY_SECONDS
            self._certificates.warn_of_end()

    def _look_at_connections(self) -> None:
        """Warn once when there are as many as there may be: gRPC closes the next ones without a word."""
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
