"""What becomes of clients when their process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Any, Protocol

EXIT_SECONDS = 2.0
"""How long the end of the interpreter may be held up by settling."""


class Exiting(Protocol):
    """A client, as far as this module is concerned."""

    def end_at_exit(self, ack: bool, seconds: float) -> None:
        """Ack (or give back) what is held and close, within about `seconds`."""
        ...

    def after_fork(self) -> object:
        """Forget, in a new child, everything that belongs to the parent; return it unharmed."""
        ...


_clients: weakref.WeakSet[Any] = weakref.WeakSet()
_parents: list[object] = []
"""What children took over from their parents and must not close: its connections are still the parent's."""
_told = 0
"""The child of multiprocessing that was told to settle when it ends, by its process id."""


def watch(client: Exiting) -> None:
    """Settle for `client` when the interpreter ends, and reset it in children that `fork` makes."""
    global _told
    _clients.add(client)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None and _told != os.getpid():
        # Children of multiprocessing end by os._exit, without atexit, or long after their exception was forgotten; this
        # is their own way to say goodbye. It is told here because each child begins by forgetting what it was told.
        _told = os.getpid()
        sys.modules["multiprocessing.util"].Finalize(None, _at_exit, exitpriority=0)


def _clean() -> bool:
    """Whether the interpreter, or a child of multiprocessing, ends without an uncaught exception.

    ``sys.exit(1)`` cannot be told from a clean end.
    """
    uncaught = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None) or sys.exc_info()[1]
    return uncaught is None or isinstance(uncaught, SystemExit)


def _at_exit() -> None:
    clean = _clean()
    for client in list(_clients):
        client.end_at_exit(ack=clean, seconds=EXIT_SECONDS)


def _after_fork_in_child() -> None:
    _parents.extend(client.after_fork() for client in list(_clients))


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
