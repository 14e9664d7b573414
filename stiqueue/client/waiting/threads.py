"""Clients that block: coroutines that never suspend, run on the spot. See `stiqueue.client.waiting.concurrency`."""

from __future__ import annotations

import _thread
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
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
        # A bare lock instead of an Event: one wait, at a fifth of the cost.
        self._lock = threading.Lock()
        self._lock.acquire()
        self.give = self._lock.release

    async def come(self, seconds: float) -> None:
        self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))


class ThreadPromise(Future[int]):
    """A `Promise` to a thread."""

    was_heard = False

    def __init__(self) -> None:
        super().__init__()
        self.begin = self.set_running_or_notify_cancel
        self.fulfil = self.set_result
        self.fail = self.set_exception

    def result(self, timeout: float | None = None) -> int:
        try:
            return super().result(timeout)
        finally:
            self.was_heard = self.done()

    def exception(self, timeout: float | None = None) -> BaseException | None:
        try:
            return super().exception(timeout)
        finally:
            self.was_heard = self.done()


class ThreadCompanion:
    """A `Companion` that is a thread."""

    def __init__(self, work: Coroutine[Any, Any, None], name: str) -> None:
        self._thread = threading.Thread(target=run, args=(work,), name=name, daemon=True)
        self._thread.start()

    async def join(self, seconds: float) -> None:
        if self._thread is not threading.current_thread():
            self._thread.join(seconds)


class ThreadOwn(threading.local):
    """An `Own` of each thread."""

    value: Any = None


class Threads:
    """How threads wait; see `Concurrency`."""

    signal = ThreadSignal
    turn = ThreadTurn
    promise = ThreadPromise
    accompany = ThreadCompanion

    def own(self, failed: Callable[[T], None], ended: Callable[[T], None]) -> ThreadOwn:
        return ThreadOwn()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return run(work)

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        run(work)

    def leave(self, work: Callable[[], Coroutine[Any, Any, None]], home: object) -> None:
        with suppress(RuntimeError):  # the interpreter is ending, and every connection with it
            # Not `threading`, whose locks this thread may hold: a finalizer may run anywhere.
            _thread.start_new_thread(lambda: run(work()), ())

    def home(self) -> None:
        return None

    def on_shutdown(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Nothing to do: `stiqueue.client.exits` handles the end of the interpreter."""

    def has_moved(self, home: object) -> bool:
        return False
