"""The timeouts of leases: gives back those whose `ack_timeout` is over."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from stiqueue.engines.clock import Clock
from stiqueue.engines.jetstream.lease import Lease
from stiqueue.engines.jetstream.leases import Leases
from stiqueue.errors import StiQueueError


class Timeouts:
    """Waits for the earliest timeout of a table of leases."""

    def __init__(self, leases: Leases, clock: Clock, spawn: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        """Watch `leases` by `clock`; `spawn` runs work in the background."""
        self._leases = leases
        self._clock = clock
        self._spawn = spawn
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        leases.on_limit = self.watch

    def watch(self) -> None:
        """Schedule a call for the earliest timeout."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        due = self._leases.next_limit()
        if due is not None and not self._closed:
            self._timer = self._loop.call_later(max(0.0, due - self._clock.monotonic()), self._over)

    def give_back_due(self) -> None:
        """Give back the leases that have expired by now."""
        if due := self._leases.due():
            self._spawn(self._time_out(due))

    def close(self) -> None:
        """Watch no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()

    def _over(self) -> None:
        self.give_back_due()
        self.watch()

    async def _time_out(self, leases: Sequence[Lease]) -> None:
        with contextlib.suppress(StiQueueError):  # then the cluster gives them back
            await self._leases.time_out(leases)
