"""Clients when their process forks or ends."""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from typing import Any, Protocol

EXIT_SECONDS = 2.0
"""How long settling may hold up the end of the interpreter."""


class Exiting(Protocol):
    """A client, as far as this module uses it."""

    def end_at_exit(self, ack: bool, seconds: float) -> None:
        """Ack (or give back) its leases and close, within about `seconds`."""
        ...

    def after_fork(self) -> object:
        """Forget, in a new child, everything that belongs to the parent; return it unharmed."""
        ...


_made: weakref.WeakSet[Any] = weakref.WeakSet()
"""All clients: when the process forks, any of them may hold a lock on another thread."""
_clients: weakref.WeakSet[Any] = weakref.WeakSet()
"""The clients that have connected."""
_parents: list[object] = []
"""Objects that a child inherited and must not close: the connections still belong to its parent."""
_told = 0
"""The process id of the multiprocessing child for which an exit handler is registered."""


def reset_in_forks(client: Exiting) -> None:
    """Reset `client` in children that `fork` makes."""
    _made.add(client)


def watch(client: Exiting) -> None:
    """Settle for `client` when the interpreter ends."""
    global _told
    _clients.add(client)
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and multiprocessing.parent_process() is not None and _told != os.getpid():
        # A child of multiprocessing ends by os._exit, without atexit, or long after its exception is gone. Finalize is
        # its exit handler, registered here because each child first clears the handlers that it inherited.
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
    _parents.extend(client.after_fork() for client in list(_made))


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
