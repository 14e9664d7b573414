"""An answer that another thread gives later. Starts nothing and waits for nothing: the event loop is passed in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar, cast

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)

Done = Callable[[Any, "BaseException | None"], None]
"""Called with the answer, or with None and an error."""


class Answer(Protocol[T_contra]):
    """The end of an answer that the thread has that gives it; a `concurrent.futures.Future` is one."""

    def set_result(self, result: T_contra, /) -> None:
        """Answer."""
        ...

    def set_exception(self, exception: BaseException, /) -> None:
        """Fail."""
        ...


class Loop(Protocol):
    """An event loop, as far as a `Later` needs it."""

    def call_soon_threadsafe(self, callback: Callable[..., object], /, *args: Any) -> Any:
        """Call on the loop, from any thread. Raises RuntimeError when the loop has ended."""
        ...

    def create_future(self) -> Any:
        """Return a future of the loop."""
        ...


class Later(Generic[T], Awaitable[T]):
    """An answer for one event loop, by callback or by `await`.

    `set_result` and `set_exception` are for any thread and are called once; all else is for the loop. Cancelling an
    `await` does not cancel the work.
    """

    __slots__ = ("_done", "_loop", "_make", "_outcome")

    def __init__(self, loop: Loop) -> None:
        """Answer on `loop`."""
        self._loop = loop
        self._make: Callable[[Any], Any] | None = None
        self._done: Done | None = None
        self._outcome: tuple[Any, BaseException | None] | None = None

    def set_result(self, result: T, /) -> None:
        """Answer, unless the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.arrive, result, None)

    def set_exception(self, exception: BaseException, /) -> None:
        """Fail, unless the loop has ended."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self.arrive, None, exception)

    def arrive(self, result: Any, error: BaseException | None) -> None:
        """Answer or fail, on the loop."""
        if self._make is not None and error is None:
            try:
                result = self._make(result)
            except Exception as failure:
                result, error = None, failure
        self._outcome = result, error
        if self._done is not None:
            self._done(result, error)

    def map(self, make: Callable[[T], R]) -> Later[R]:
        """Let `make` turn the answer, which is not there yet, into another. An exception in `make` is its failure."""
        self._make = make
        return cast("Later[R]", self)

    def when_done(self, done: Done) -> None:
        """Call `done`, on the loop, once the answer is there; at once if it is. To be called once."""
        if self._outcome is not None:
            done(*self._outcome)
        else:
            self._done = done

    def __await__(self) -> Generator[Any, None, T]:
        waiting = self._loop.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            if waiting.done():  # cancelled: nobody wants to know
                return
            if error is None:
                waiting.set_result(result)
            else:
                waiting.set_exception(error)

        self.when_done(done)
        result: T = yield from waiting
        return result
