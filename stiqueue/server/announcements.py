"""The log lines of a server's start and stop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from stiqueue._version import __version__
from stiqueue.errors import StiQueueError
from stiqueue.rules.engine import Engine
from stiqueue.server import listening
from stiqueue.settings import Settings

HELD_SECONDS = 1.0
"""How long a stop waits for the number of leased messages: a cluster may be unreachable."""


def serving(settings: Settings, port: int, messages: str, metrics_port: int | None, logger: logging.Logger) -> None:
    """Log the server's `port`, where it keeps `messages`, its protection, and warnings for its operator."""
    logger.info(
        "StiQueue %s on %s:%d, messages %s; %s",
        __version__,
        settings.host,
        port,
        messages,
        features(settings, metrics_port),
    )
    most = listening.most_connections(settings)
    if most < (settings.max_connections or 0):
        logger.warning("max_connections: only %s, for want of file descriptors (ulimit -n)", f"{most:,}")
    lacks = listening.lacks(settings)
    if lacks:
        logger.warning("%s is reachable from other machines, without %s", settings.host, lacks)


def features(settings: Settings, metrics_port: int | None) -> str:
    """Return a server's protection and metrics port in words: ``no TLS, tokens, metrics on port 9464``."""

    def each() -> Iterator[str]:
        yield "no TLS" if settings.tls_cert is None else "mutual TLS" if settings.tls_client_ca else "TLS"
        yield "no tokens" if settings.tokens is None else "tokens"
        if metrics_port is not None:
            yield f"metrics on port {metrics_port}"

    return ", ".join(each())


class Stopping:
    """Logs how many messages a stop waits for, and how many were given back."""

    def __init__(self, engine: Engine, logger: logging.Logger) -> None:
        """Count the messages of `engine`, and log with `logger`."""
        self._engine = engine
        self._logger = logger
        self._held = self._given_back = 0

    async def begins(self, grace: float) -> None:
        """Log how many messages consumers hold, and that they have `grace` seconds to settle them."""
        self._held, self._given_back = await self._counts()
        if not self._held:
            self._logger.info("stopping: no consumer holds a message")
        elif grace:
            self._logger.info(
                "stopping: waiting up to %g s for consumers to settle %s; a second signal ends the wait",
                grace,
                _messages(self._held),
            )
        else:
            self._logger.info("stopping: consumers give back %s", _messages(self._held))

    async def ended(self) -> None:
        """Log how many of those messages were given back."""
        if self._held:
            _, given_back = await self._counts()
            self._logger.info("drained: %s given back", _messages(given_back - self._given_back))

    async def _counts(self) -> tuple[int, int]:
        """Return how many messages are leased, and how many were ever given back; zeros if they are unknown."""
        try:
            counts = await asyncio.wait_for(self._engine.counts([]), HELD_SECONDS)
        except (StiQueueError, asyncio.TimeoutError):
            return 0, 0
        return sum(each.leased for each in counts), sum(each.requeued for each in counts)


def _messages(count: int) -> str:
    return f"{count:,} message" + "s" * (count != 1)
