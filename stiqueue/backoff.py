"""How long to go on trying."""

from __future__ import annotations

import random
import time

from stiqueue.concurrency import Signal
from stiqueue.errors import Closed

FIRST_BACKOFF_SECONDS, LONGEST_BACKOFF_SECONDS = 0.05, 1.0


class Backoff:
    """How long to go on trying: until `timeout` seconds after the first of a row of failures."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._failing_since: float | None = None
        self._pause = FIRST_BACKOFF_SECONDS

    def reset(self) -> None:
        """Something worked."""
        self._failing_since = None
        self._pause = FIRST_BACKOFF_SECONDS

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
        if await interrupted.wait(min(left, self._pause * random.uniform(0.5, 1.5))):
            raise Closed("the client was closed")
        self._pause = min(self._pause * 2, LONGEST_BACKOFF_SECONDS)
