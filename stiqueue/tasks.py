"""Clients that suspend: tasks of one event loop. See `stiqueue.concurrency`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakMethod

T = TypeVar("T")


class TaskSignal:
    """A `Signal` between tasks."""

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: set[asyncio.Future[None]] = set()

    def set(self) -> None:
        self._is_set = True
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def is_set(self) -> bool:
        return self._is_set

    async def wait(self, seconds: float) -> bool:
        if not self._is_set:
            waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.add(waiting)
            try:
                # Not `wait_for`: before Python 3.12 it can lose a cancellation.
                await asyncio.wait((waiting,), timeout=seconds)
            finally:
                self._waiting.discard(waiting)
                waiting.cancel()
        return self._is_set


class TaskTurn:
    """A `Turn` of a task."""

    __slots__ = ("_future",)

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def come(self) -> None:
        await self._future

    def give(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class TaskOwn(Generic[T]):
    """An `Own` of each task."""

    def __init__(self, failed: Callable[[T], None]) -> None:
        self._failed = failed
        self._values: WeakKeyDictionary[asyncio.Task[Any], T | None] = WeakKeyDictionary()

    @property
    def value(self) -> T | None:
        task = asyncio.current_task()
        return None if task is None else self._values.get(task)

    @value.setter
    def value(self, value: T | None) -> None:
        task = asyncio.current_task()
        if task is None:
            return
        if task not in self._values:
            task.add_done_callback(self._ended)
        self._values[task] = value

    def _ended(self, task: asyncio.Task[Any]) -> None:
        value = self._values.pop(task, None)
        if value is None:
            return
        # Not by `exception()`, which would keep the loop from logging an exception that nobody asks for.
        error = getattr(task, "_exception", None)
        if task.cancelled() or (error is not None and not isinstance(error, SystemExit)):
            self._failed(value)


class Tasks:
    """How tasks wait; see `Concurrency`."""

    signal = TaskSignal
    turn = TaskTurn
    own = TaskOwn

    def __init__(self) -> None:
        self._unfinished: set[asyncio.Task[Any]] = set()
        self._settled: object = None
        """The event loop for which there is a farewell."""
        self._farewell: AsyncGenerator[None, None] | None = None

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.ensure_future(work)
        self._unfinished.add(task)
        task.add_done_callback(self._unfinished.discard)
        return await asyncio.shield(task)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return work

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        work.close()  # the event loop is gone; what is held is given back as the connection ends

    def home(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def settle(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._settled is not self.home():
            self._settled = self.home()
            self._farewell = _farewell(WeakMethod(leave))
            with suppress(StopIteration):  # it has come to its `yield`
                self._farewell.__anext__().send(None)

    def has_moved(self, home: object) -> bool:
        if home is self.home():
            return False
        if isinstance(home, asyncio.AbstractEventLoop) and not home.is_closed():
            raise RuntimeError(
                "this AsyncSQClient is used by another event loop: make one for each loop, or close it there first"
            )
        return True


async def _farewell(leave: WeakMethod[Any]) -> AsyncGenerator[None, None]:
    """Leave when the event loop shuts down: it closes all generators that have begun, and lets them await."""
    try:
        yield
    finally:
        alive = leave()
        if alive is not None:
            await alive()
