"""The seam between clients that block a thread and clients that suspend a task.

What a client does is written once, in coroutines. A client of threads runs them with awaitables that never suspend:
they block the thread and are done when they return, so that each coroutine ends in one go (`stiqueue.threads`). A
client of tasks awaits them on its event loop (`stiqueue.tasks`). A *flow* is one of either: a thread or a task.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Signal(Protocol):
    """Something that happens once."""

    def set(self) -> None:
        """It has happened: let all that wait go on."""
        ...

    def is_set(self) -> bool:
        """Whether it has happened."""
        ...

    async def wait(self, seconds: float) -> bool:
        """Wait for it for up to `seconds`; return whether it has happened."""
        ...


class Turn(Protocol):
    """One flow waits, once, until another lets it go on."""

    async def come(self) -> None:
        """Wait."""
        ...

    def give(self) -> None:
        """Let it go on."""
        ...


class Own(Protocol[T]):
    """A value that each flow has for itself."""

    value: T | None
    """That of the current flow."""


class Concurrency(Protocol):
    """How flows wait, and what they have for themselves."""

    def signal(self) -> Signal:
        """Make a signal."""
        ...

    def turn(self) -> Turn:
        """Make a turn, of the current flow."""
        ...

    def own(self, failed: Callable[[T], None]) -> Own[T]:
        """Make a value for each flow; `failed` is told that of a task that was cancelled or ended by an exception."""
        ...

    async def finish(self, work: Coroutine[Any, Any, T]) -> T:
        """Do work that others wait for, to its end even if this flow is cancelled."""
        ...

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Return what `work` returns; for tasks: what is to be awaited for it."""
        ...

    def run_at_exit(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do work when the interpreter ends, as far as that is possible."""
        ...

    def home(self) -> object:
        """Return what all calls of a client must have in common: nothing for threads, the event loop for tasks."""
        ...

    def settle(self, leave: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to use the home; `leave` is awaited (if its object is still there) when an event loop shuts down."""
        ...

    def has_moved(self, home: object) -> bool:
        """Whether the home is no longer `home`.

        Raises:
            RuntimeError: it is not, and `home` still exists: one of the two is used by mistake.
        """
        ...
