"""The seam between clients that block a thread and clients that suspend a task.

A client's behavior is written once, in coroutines. A client of threads runs them with awaitables that block the thread
instead of suspending, so that each coroutine ends in one go (`waiting.threads`). A client of tasks awaits them on its
event loop (`waiting.tasks`). A *flow* is a thread or a task.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Signal(Protocol):
    """An event that happens once."""

    def set(self) -> None:
        """Note that it has happened; wake every flow that waits."""
        ...

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Wait for it for up to `seconds`; return whether it has happened."""
        ...


class Turn(Protocol):
    """Lets one flow wait once until another wakes it."""

    async def come(self, seconds: float) -> None:
        """Wait, for up to `seconds`."""
        ...

    def give(self) -> None:
        """Wake the flow."""
        ...


class Promise(Protocol):
    """A future of a message id, of the kind that suits the flows."""

    was_heard: bool
    """Whether anybody has read its outcome."""

    def begin(self) -> bool:
        """Begin to fulfil it; return False if it was cancelled."""
        ...

    def fulfil(self, value: int) -> None:
        """Set its value."""
        ...

    def fail(self, error: Exception) -> None:
        """Set its error."""
        ...


class Companion(Protocol):
    """A thread or task that works beside the flows of a client."""

    async def join(self, seconds: float) -> None:
        """Wait for its end, for up to `seconds`."""
        ...


class Own(Protocol[T]):
    """A variable with a value for each flow."""

    value: T | None
    """The value of the current flow."""


class Concurrency(Protocol):
    """How flows wait, and variables of flows."""

    def signal(self) -> Signal:
        """Make a signal."""
        ...

    def turn(self) -> Turn:
        """Make a turn for the current flow."""
        ...

    def promise(self) -> Promise:
        """Make a promise to the current flow."""
        ...

    def own(self, failed: Callable[[T], None], ended: Callable[[T], None]) -> Own[T]:
        """Make a variable with a value for each flow. A thread drops its value when it ends.

        Args:
            failed: called with the value of a task that was cancelled or ended by an exception.
            ended: called with the value of a task that ended well.
        """
        ...

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of `work`; for tasks: an awaitable of it."""
        ...

    def accompany(self, work: Coroutine[Any, Any, None], name: str) -> Companion:
        """Do `work` in a thread or task of that name."""
        ...

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do `work` at the end of the interpreter, if possible."""
        ...

    def leave(self, work: Callable[[], Coroutine[Any, Any, None]], home: object) -> None:
        """Begin `work` in the background, at its `home`. May be called by any thread, whatever locks it holds."""
        ...

    def home(self) -> object:
        """Return the event loop to which a client's calls are bound; None for threads."""
        ...

    def on_shutdown(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the current event loop await `leave`, a method, when it shuts down, if its object still lives."""
        ...

    def has_moved(self, home: object) -> bool:
        """Whether the home is no longer `home`.

        Raises:
            RuntimeError: it is not, and `home` still exists: one of the two is used by mistake.
        """
        ...
