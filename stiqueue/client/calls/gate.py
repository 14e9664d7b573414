"""The gate that keeps threads out of gRPC while their process forks.

gRPC stops its own threads before a fork. If another thread is inside gRPC at that moment, its locks stay locked in the
child, which hangs or crashes. So a fork waits until no thread is inside, and calls that begin meanwhile wait for the
fork. Streams and begun calls need no wait: gRPC's own threads carry them, and go on after the fork. But with an open
stream, gRPC's thread for events notices a fork only within a second. So the gate closes pipes, which every client has,
before the fork, and wakes that thread.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol
from weakref import WeakSet

from stiqueue.errors import Unavailable

SETTLE_SECONDS = 0.02
"""How long a thread that begins to read a stream may be inside gRPC before it waits outside."""


class Wakeable(Protocol):
    """Has a thread of gRPC that waits for events."""

    def wake(self) -> None:
        """Cause an event soon."""
        ...


class Parkable(Protocol):
    """Is closed before a fork."""

    def park(self) -> None:
        """Close it without losing anything."""
        ...


class Gate:
    """Open, except while a fork is under way. Thread-safe."""

    def __init__(self) -> None:
        """Begin open."""
        self._forking = threading.RLock()
        """Held by the thread that forks; the fork of another thread waits. Taken before `_changed`."""
        self._closings = 0
        """How often `close` was called for this fork. Guarded by `_forking`."""
        self._changed = threading.Condition()
        """Notified when the gate opens, and when a call leaves a closed gate."""
        self._is_closed = False
        self._inside: dict[object, int] = {}
        """The calls that block inside gRPC, each with the id of its thread."""
        self._free: set[int] = set()
        """The ids of threads that the gate never keeps out: threads of gRPC, which waits for them before a fork, and
        the thread that forks, on which the garbage collector may close a client."""
        self._last_visit = 0.0
        self._wakeable: WeakSet[Wakeable] = WeakSet()
        """Objects to wake before a fork. Guarded by `_changed`."""
        self._parkable: WeakSet[Parkable] = WeakSet()
        """Objects to close before a fork. Guarded by `_changed`."""

    # No lock per call. A call enters, then checks whether the gate is closed; a fork closes the gate, then checks for
    # calls inside. So one of the two sees the other.

    def enter(self, call: object, timeout: float = math.inf) -> float:
        """Enter with a `call` that blocks inside gRPC, after any fork in progress; return the rest of `timeout`.

        Raises:
            Unavailable: the fork took longer than `timeout` seconds; nothing was sent.
        """
        self._inside[call] = threading.get_ident()
        if not self._keeps_out():
            return timeout
        deadline = time.monotonic() + timeout
        while self._keeps_out():
            self.leave(call)
            if not self._wait(deadline):
                raise Unavailable(f"within {timeout:g} s: this process was about to fork, and waited for other calls")
            self._inside[call] = threading.get_ident()
        return max(0.001, deadline - time.monotonic())

    def leave(self, call: object) -> None:
        """Leave with a call, whether it was let in or not."""
        self._inside.pop(call, None)
        if self._is_closed:
            with self._changed:
                self._changed.notify_all()

    def visit(self) -> None:
        """Enter for a moment, after any fork in progress: for a call that does not block inside gRPC."""
        self._last_visit = time.monotonic()
        while self._keeps_out():
            self._wait(math.inf)
            self._last_visit = time.monotonic()

    def park_before_fork(self, parkable: Parkable) -> None:
        """Close `parkable` before the next fork."""
        with self._changed:
            self._parkable.add(parkable)

    def wake_before_fork(self, wakeable: Wakeable) -> None:
        """Wake `wakeable` before each fork. Its thread checks for a fork at each event, or once a second."""
        with self._changed:
            self._wakeable.add(wakeable)

    @contextmanager
    def let_in(self) -> Iterator[None]:
        """Let this thread through the gate even while a fork waits: gRPC waits for the thread."""
        thread = threading.get_ident()
        if thread in self._free:
            yield
            return
        self._free.add(thread)
        try:
            yield
        finally:
            self._free.discard(thread)

    def _keeps_out(self) -> bool:
        return self._is_closed and threading.get_ident() not in self._free

    def _wait(self, deadline: float) -> bool:
        """Wait until the gate is open; return whether it is."""
        seconds = None if deadline == math.inf else max(0.0, deadline - time.monotonic())
        with self._changed:
            return self._changed.wait_for(lambda: not self._is_closed, seconds)

    def close(self) -> None:
        """Before a fork: hold back new calls, and wait until all calls inside have ended."""
        self._forking.acquire()
        self._closings += 1
        self._free.add(threading.get_ident())
        self._is_closed = True
        with self._changed:
            self._changed.wait_for(lambda: not self._others_inside())
            parkable = list(self._parkable)
            self._parkable.clear()
        for each in parkable:  # before gRPC's own preparation, after which there are no answers: at the first `close`
            each.park()
        with self._changed:
            settled = self._last_visit + SETTLE_SECONDS
            self._changed.wait_for(lambda: time.monotonic() >= settled, max(0.0, settled - time.monotonic()))
            wakeable = list(self._wakeable) if self._closings == 1 else []
        for waiting in wakeable:  # the last step: gRPC begins to prepare at once, and the event comes a moment later
            waiting.wake()

    def open(self) -> None:
        """Let calls in again at the last `open` after a fork, in the parent."""
        if not self._closings:
            return  # registered while the fork was waiting for the first channel
        self._closings -= 1
        if not self._closings:
            self._free.discard(threading.get_ident())
            with self._changed:
                self._is_closed = False
                self._changed.notify_all()
        self._forking.release()

    def reset(self) -> None:
        """Begin anew: after a fork, in the child, where the other threads do not exist."""
        self.__init__()  # type: ignore[misc]  # threads of the parent may have held its locks

    def _others_inside(self) -> bool:
        """Whether another thread is inside. The forking thread may be, if a signal handler forks during its call."""
        return any(thread != threading.get_ident() for thread in list(self._inside.values()))


GATE = Gate()
"""The gate of this process."""


def _guard() -> None:
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=GATE.close, after_in_parent=GATE.open, after_in_child=GATE.reset)


_guards_again = False


def guards_again() -> bool:
    """Whether each fork closes the gate once more, after gRPC has stopped its threads: from the first channel on."""
    return _guards_again


def guard_again() -> None:
    """Close the gate before gRPC's own preparation of each fork, too. To be called after gRPC made its first channel.

    gRPC registers its functions then, and those registered last run first before a fork, and last after it.
    """
    global _guards_again
    if not _guards_again:
        _guards_again = True
        _guard()


_guard()  # before there is a channel: a child hangs if another thread of its parent was making the first one
