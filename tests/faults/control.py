"""How a worker process and the test that started it talk: a line is an order on stdin or a report on stdout."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable


class Control:
    """The worker's end. Orders run on a thread of their own; the end of stdin, the test's death too, is ``stop``."""

    def __init__(self) -> None:
        """Know one order, ``stop``."""
        self.stopped = threading.Event()
        """Set when the worker is to end."""
        self._orders: dict[str, Callable[[], None]] = {}
        self._lock = threading.Lock()

    def on(self, order: str, action: Callable[[], None]) -> None:
        """Call `action` at each `order`; ``stop`` also sets `stopped`, before it."""
        self._orders[order] = action

    def listen(self) -> None:
        """Begin to obey, and say so."""
        threading.Thread(target=self._obey, name="control", daemon=True).start()

    def report(self, *words: object) -> None:
        """Tell the test something."""
        with self._lock:
            print(*words, flush=True)

    def _obey(self) -> None:
        for line in sys.stdin:
            if line.strip() == "stop":
                break
            self._orders[line.strip()]()
        self.stopped.set()
        self._orders.get("stop", lambda: None)()
