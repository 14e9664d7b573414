"""Settling in the background, so that an event loop need not wait for answers."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from stiqueue import Closed, StiQueueError
from stiqueue.adapters.celery.log import logger

IDLE_SECONDS = 1.0
"""How long the thread waits for something to do before it ends."""


class Settler:
    """A thread that settles one message after another; it ends when there is nothing to do."""

    def __init__(self) -> None:
        """Begin with nothing to do."""
        self._jobs: deque[tuple[str, Callable[[], bool]]] = deque()
        self._changed = threading.Condition()
        """Protects all attributes; pools of threads settle from any thread."""
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def settle(self, what: str, job: Callable[[], bool]) -> None:
        """Let `job` settle the message that logs call `what`."""
        with self._changed:
            self._jobs.append((what, job))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="stiqueue-settler", daemon=True)
                self._thread.start()

    def flush(self, seconds: float) -> None:
        """Wait for up to `seconds` until what was handed over is settled."""
        if self._thread is None:
            return
        done = threading.Event()

        def tell() -> bool:
            done.set()
            return True

        self.settle("", tell)
        done.wait(seconds)

    def close(self, seconds: float) -> None:
        """Wait for up to `seconds` until everything is settled."""
        with self._changed:
            self._is_closed = True
            self._changed.notify()
            thread = self._thread
        if thread is not None:
            thread.join(seconds)

    def _next(self) -> tuple[str, Callable[[], bool]] | None:
        """Wait for something to do; None: the thread is to end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed, IDLE_SECONDS)
            if self._jobs:
                return self._jobs.popleft()
            self._thread = None
            return None

    def _run(self) -> None:
        while (job := self._next()) is not None:
            what, settle = job
            try:
                if not settle():
                    logger.warning("%s was settled too late: it is delivered again", what)
            except Closed:
                logger.warning("%s was not settled before its connection ended: it is delivered again", what)
            except StiQueueError as error:
                logger.warning("could not settle %s, it is delivered again: %s", what, error)
