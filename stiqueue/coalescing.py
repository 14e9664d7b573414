"""Calls of many threads or tasks that travel together.

A call that finds none under way goes at once and alone. Those that come meanwhile gather, and one of them
sends all when the first returns: no lingering, and with 64 threads about 60 of them in each request.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Generic, TypeVar

from stiqueue.concurrency import Concurrency, Turn

Q = TypeVar("Q")
A = TypeVar("A")


class _Waiting(Generic[Q, A]):
    """One flow's request, and what became of it. Written by the sender while the owner waits for `turn`."""

    __slots__ = ("answer", "error", "kind", "leads", "request", "turn")

    def __init__(self, request: Q, kind: Hashable, turn: Turn) -> None:
        self.request = request
        self.kind = kind
        self.answer: list[A] = []
        """The answer in a list, or nothing."""
        self.error: BaseException | None = None
        self.leads = False
        """Whether its own flow is to send: itself and what has gathered."""
        self.turn = turn


class Coalescer(Generic[Q, A]):
    """Sends requests of many flows together. Thread-safe.

    Only requests of one kind are put together, one call at a time. When a joint call is refused, each request is sent
    alone, so that one's mistake is not another's.
    """

    def __init__(
        self,
        concurrency: Concurrency,
        send: Callable[[list[Q]], Coroutine[Any, Any, list[A]]],
        refused: type[Exception],
        most: int,
    ) -> None:
        """Make one.

        Args:
            concurrency: how flows wait.
            send: sends requests of one kind together; returns their answers in the same order.
            refused: what `send` raises when nothing was done because of what was asked.
            most: how many requests are put together at the most.
        """
        self._concurrency = concurrency
        self._send = send
        self._refused = refused
        self._most = most
        self._lock = threading.Lock()
        """Guards the two below."""
        self._busy = False
        self._gathered: deque[_Waiting[Q, A]] = deque()

    async def __call__(self, request: Q, kind: Hashable) -> A:
        """Send `request`, with others of its `kind` that wait; return its own answer or raise its own error."""
        with self._lock:
            if not self._busy:
                self._busy = True
                mine = None
            else:
                mine = _Waiting[Q, A](request, kind, self._concurrency.turn())
                self._gathered.append(mine)
        if mine is None:
            try:
                return (await self._send([request]))[0]
            finally:
                self._pass_on()
        try:
            await mine.turn.come()
        except BaseException:  # this flow is cancelled, or interrupted by Ctrl-C
            self._withdraw(mine)
            raise
        if mine.leads:
            await self._concurrency.finish(self._lead(mine))
        if mine.error is not None:
            raise mine.error
        return mine.answer[0]

    def _withdraw(self, mine: _Waiting[Q, A]) -> None:
        """Go on without one that waits no longer. If it is being sent already, nobody asks for its answer."""
        with self._lock:
            if mine in self._gathered:
                self._gathered.remove(mine)
        if mine.leads:
            self._pass_on()

    def _pass_on(self) -> None:
        """The call under way has ended: let the next one lead."""
        with self._lock:
            if not self._gathered:
                self._busy = False
                return
            leader = self._gathered.popleft()
            leader.leads = True
        leader.turn.give()

    async def _lead(self, mine: _Waiting[Q, A]) -> None:
        """Send what has gathered; wake the others once the next leader is on its way."""
        group = [mine]
        with self._lock:
            others: deque[_Waiting[Q, A]] = deque()
            while self._gathered and len(group) < self._most:
                each = self._gathered.popleft()
                (group if each.kind == mine.kind else others).append(each)
            self._gathered.extendleft(reversed(others))
        try:
            try:
                for each, answer in zip(group, await self._send([each.request for each in group]), strict=True):
                    each.answer.append(answer)
            except self._refused:
                await self._send_each(group)
        except BaseException as error:
            for each in group:
                if not each.answer:
                    each.error = each.error or error
        finally:
            self._pass_on()
            for each in group[1:]:
                each.turn.give()

    async def _send_each(self, group: list[_Waiting[Q, A]]) -> None:
        for each in group:
            try:
                each.answer.append((await self._send([each.request]))[0])
            except self._refused as error:
                each.error = error
