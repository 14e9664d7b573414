"""The clocks of an engine: monotonic time for decisions, wall time for people and for the data file."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where an engine gets the time from."""

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        ...

    def wall(self) -> float:
        """Return seconds since 1970, which may jump when somebody sets the clock."""
        ...


class SystemClock:
    """The machine's clocks."""

    def monotonic(self) -> float:
        """Return `time.monotonic()`."""
        return time.monotonic()

    def wall(self) -> float:
        """Return `time.time()`."""
        return time.time()
