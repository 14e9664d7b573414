"""Clients that suspend: tasks of one event loop. See `stiqueue.client.waiting.concurrency`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary, WeakMethod, ref

T = TypeVar("T")

_leaving: set[asyncio.Task[None]] = set()
"""Background tasks: an event loop alone does not keep them alive."""


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

    async def come(self, seconds: float) -> None:
        late = asyncio.get_running_loop().call_later(seconds, self.give)
        try:
            await self._future
        finally:
            late.cancel()

    def give(self) -> None:
        if not self._future.done():
            self._future.set_result(None)


class TaskPromise(asyncio.Future[int]):
    """A `Promise` to a task. It may be cancelled at any time."""

    was_heard = False

    def __init__(self) -> None:
        super().__init__(loop=asyncio.get_running_loop())

    def begin(self) -> bool:
        return not self.cancelled()

    def fulfil(self, value: int) -> None:
        if not self.done():
            self.set_result(value)

    def fail(self, error: Exception) -> None:
        if not self.done():
            self.set_exception(error)
            super().exception()  # keeps asyncio from logging a failure that nobody reads: the client reports it

    def __await__(self) -> Generator[Any, None, int]:
        try:
            return (yield from super().__await__())
        finally:
            self.was_heard |= self.done()

    __iter__ = __await__

    def result(self) -> int:
        self.was_heard |= self.done()
        return super().result()

    def exception(self) -> BaseException | None:
        self.was_heard |= self.done()
        return super().exception()


class TaskCompanion:
    """A `Companion` that is a task."""

    def __init__(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._task = asyncio.get_running_loop().create_task(work, name=name)

    async def join(self, seconds: float) -> None:
        if self._task is not asyncio.current_task():
            await asyncio.wait((self._task,), timeout=seconds)


class TaskOwn(Generic[T]):
    """An `Own` of each task."""

    def __init__(self, failed: Callable[[T], None], ended: Callable[[T], None]) -> None:
        self._on_failed, self._on_ended = failed, ended
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
            # The task must not keep the client alive: one that is dropped is closed.
            own = ref(self)

            def ended(task: asyncio.Task[Any]) -> None:
                alive = own()
                if alive is not None:
                    alive._ended(task)

            task.add_done_callback(ended)
        self._values[task] = value

    def _ended(self, task: asyncio.Task[Any]) -> None:
        value = self._values.pop(task, None)
        if value is None:
            return
        # Not `exception()`, which would keep the loop from logging an exception that nobody reads.
        error = getattr(task, "_exception", None)
        if task.cancelled() or (error is not None and not isinstance(error, SystemExit)):
            self._on_failed(value)
        else:
            self._on_ended(value)


class Tasks:
    """How tasks wait; see `Concurrency`."""

    signal = TaskSignal
    turn = TaskTurn
    promise = TaskPromise
    accompany = TaskCompanion
    own = TaskOwn

    def __init__(self) -> None:
        self._shutdown_of: object = None
        """The event loop whose shutdown closes the client."""
        self._farewell: AsyncGenerator[None, None] | None = None

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return work

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        work.close()  # the event loop is gone; the end of the connection gives leases back

    def leave(self, work: Callable[[], Coroutine[Any, Any, None]], home: object) -> None:
        def begin() -> None:
            task = asyncio.ensure_future(work())
            _leaving.add(task)
            task.add_done_callback(_leaving.discard)

        if isinstance(home, asyncio.AbstractEventLoop):
            with suppress(RuntimeError):  # the event loop is closed: gRPC frees the channel by itself
                home.call_soon_threadsafe(begin)

    def home(self) -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    def on_shutdown(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._shutdown_of is not self.home():
            self._shutdown_of = self.home()
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
    """Leave when the event loop shuts down: it closes all begun generators, and lets them await."""
    try:
        yield
    finally:
        alive = leave()
        if alive is not None:
            await alive()
