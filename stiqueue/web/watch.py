"""Watches the counts of a server, while somebody looks: one question for all viewers of one token."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any

from stiqueue.errors import AccessDenied, StiQueueError, Unavailable
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.alerts import Alert, AlertBook, down
from stiqueue.web.history import History

INTERVAL_SECONDS = 1.0
"""The shortest time between two questions."""
LONGEST_INTERVAL_SECONDS = 15.0
SHARE = 0.015
"""The most of a core that the questions may take from the server: after an answer that took 40 ms the next question
waits 2.7 s. What travels and what this process computes counts as if the server had done it."""

Count = Callable[[], Coroutine[Any, Any, list[pb.QueueCounts]]]


class Watch:
    """The counts of all queues, kept fresh while there are viewers. For one event loop."""

    def __init__(self, server: str, count: Count, clock: Callable[[], float] = time.monotonic) -> None:
        """Watch the `server`, asking by `count`; nothing is asked before somebody looks."""
        self._server = server
        self._count = count
        self._clock = clock
        self.history = History()
        self.book = AlertBook()
        self.counts: dict[str, pb.QueueCounts] = {}
        self.alerts: list[Alert] = []
        self.interval = INTERVAL_SECONDS
        self.problem: StiQueueError | None = None
        """Why the counts are stale; None while the server answers."""
        self._failing_since = 0.0
        self._answered_at: float | None = None
        self.tick = 0
        """Changes with each answer, or lack of one."""
        self._viewers = 0
        self._closed = False
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._asking = asyncio.Lock()
        """One question at a time."""

    @property
    def silent_seconds(self) -> float:
        """For how long the server has not answered; 0 while it does."""
        return self._clock() - self._failing_since if self.problem is not None else 0.0

    async def look(self) -> None:
        """See that the counts are of now: ask unless somebody has a moment ago."""
        if self._answered_at is None or self._clock() - self._answered_at > self.interval:
            await self._ask()

    async def ticks(self) -> AsyncGenerator[int, None]:
        """Iterate over the changes, from the present one on; asks the server for as long as the loop goes on."""
        self._viewers += 1
        if self._task is None:
            self._task = asyncio.create_task(self._keep_asking(), name="stiqueue-web-watch")
        try:
            while not self._closed:
                seen = self.tick
                yield seen
                while self.tick == seen:
                    await self._news.wait()
        finally:
            self._viewers -= 1
            if not self._viewers and self._task is not None:
                self._task.cancel()
                self._task = None

    async def close(self) -> None:
        """Ask no more; all loops over the changes end."""
        self._closed = True
        if self._task is not None:
            self._task.cancel()
            self._task = None
        self._tell()

    async def _keep_asking(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self.interval)

    async def _ask(self) -> None:
        async with self._asking:
            began = self._clock()
            try:
                counts = await self._count()
            except StiQueueError as error:
                self._fail(error)
            else:
                now = self._clock()
                self.interval = min(max(INTERVAL_SECONDS, (now - began) / SHARE), LONGEST_INTERVAL_SECONDS)
                self.problem, self._answered_at = None, now
                self.counts = {each.queue: each for each in counts}
                self.history.add(counts, now)
                self.alerts = self.book.read(counts, now)
            self._tell()

    def _tell(self) -> None:
        self.tick += 1
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _fail(self, error: StiQueueError) -> None:
        if self.problem is None:
            self._failing_since = self._clock()
        self.problem = error
        self.alerts = [alert for alert in self.alerts if alert.queue]
        if isinstance(error, Unavailable):
            self.alerts.insert(0, down(self._server, self.silent_seconds))

    @property
    def is_locked_out(self) -> bool:
        """Whether the server no longer takes the token."""
        return isinstance(self.problem, AccessDenied)
