"""How long to go on trying."""

from __future__ import annotations

import logging
import random
import time
from typing import NamedTuple

from stiqueue.client.waiting.concurrency import Signal
from stiqueue.errors import Closed

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.05, 1.0
SILENT_SECONDS = 5.0
"""Warn once when failures have lasted this long: a program may wait much longer than a person."""


class Patience(NamedTuple):
    """The time limit of one call of a user, shared by everything that the call waits for."""

    seconds: float
    since: float
    """When it began, in monotonic seconds."""

    @classmethod
    def of(cls, seconds: float) -> Patience:
        """Begin to wait."""
        return cls(seconds, time.monotonic())

    @property
    def left(self) -> float:
        """Seconds until it is over, at least 0."""
        return max(0.0, self.since + self.seconds - time.monotonic())


class Backoff:
    """Pauses between tries, until `timeout` seconds after the first of consecutive failures."""

    # Class attributes, because every call makes a Backoff and hardly any uses it.
    _failing_since: float | None = None
    _pause = FIRST_BACKOFF_SECONDS
    _has_warned = False

    def __init__(self, timeout: float, logger: logging.Logger | None = None) -> None:
        """Go on for `timeout` seconds; warn `logger` once when failures last long."""
        self._timeout = timeout
        self._logger = logger

    def reset(self) -> None:
        """Note a success."""
        self._failing_since = None
        self._pause = FIRST_BACKOFF_SECONDS
        self._has_warned = False

    async def pause(self, error: Exception, interrupted: Signal, since: float | None = None) -> None:
        """Wait a little before the next try; raise `error` when the time is up.

        Args:
            error: why the last try failed.
            interrupted: set when the client is closed meanwhile.
            since: when the failed try began, in monotonic seconds; default: now.
        """
        now = time.monotonic()
        if self._failing_since is None:
            self._failing_since = now if since is None else since
        left = self._failing_since + self._timeout - now
        if left <= 0:
            raise error
        failing = now - self._failing_since
        if self._logger is not None and failing > SILENT_SECONDS and not self._has_warned:
            self._has_warned = True
            self._logger.warning("trying again for %.0f s by now: %s", failing, error)
        if await interrupted.wait(min(left, self._pause * random.uniform(0.5, 1.5))):
            raise Closed("the client was closed")
        self._pause = min(self._pause * 2, LONGEST_BACKOFF_SECONDS)
