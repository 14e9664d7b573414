"""Clients that block: coroutines that never suspend, run on the spot. See `stiqueue.concurrency`."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that blocks instead of suspending; return what it returns."""
    try:
        work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    work.close()
    raise RuntimeError("a blocking client awaited something that suspends")


class ThreadSignal:
    """A `Signal` between threads."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.set = self._event.set
        self.is_set = self._event.is_set

    async def wait(self, seconds: float) -> bool:
        return self._event.wait(seconds)


class ThreadTurn:
    """A `Turn` of a thread."""

    __slots__ = ("_lock", "give")

    def __init__(self) -> None:
        # A bare lock instead of an Event: it is made and waited for once, and costs a fifth.
        self._lock = threading.Lock()
        self._lock.acquire()
        self.give = self._lock.release

    async def come(self) -> None:
        self._lock.acquire()


class ThreadOwn(threading.local):
    """An `Own` of each thread."""

    value: Any = None


class Threads:
    """How threads wait; see `Concurrency`."""

    signal = ThreadSignal
    turn = ThreadTurn

    def own(self, failed: Callable[[T], None]) -> ThreadOwn:
        return ThreadOwn()  # what a failed thread held is settled with the client: others may go on with it

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        return await work

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return run(work)

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        run(work)

    def home(self) -> None:
        return None

    def settle(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Threads have no home to care for: the interpreter's end is that of `stiqueue.exits`."""

    def has_moved(self, home: object) -> bool:
        return False
