"""Reads single keys from the terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Sized
from types import TracebackType
from typing import Any

POLL_SECONDS = 0.1


class Keys:
    """Reads single keys in a ``with`` block; without a terminal it reads none."""

    def __init__(self) -> None:
        self._before: Any = None

    def wait(self, seconds: float, until: Sized = ()) -> str:
        """Wait for a key for up to `seconds`, while `until` is empty; return it in lower case, or ""."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not until:
            if not sys.stdin.isatty():
                time.sleep(min(left, POLL_SECONDS))
            elif key := _read(min(left, POLL_SECONDS)):
                return key
        return ""

    def __enter__(self) -> Keys:
        if sys.platform != "win32" and sys.stdin.isatty():
            import termios
            import tty

            self._before = termios.tcgetattr(sys.stdin)
            tty.setcbreak(sys.stdin)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if sys.platform != "win32" and self._before is not None:
            import termios

            termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self._before)


if sys.platform == "win32":

    def _read(seconds: float) -> str:
        import msvcrt

        time.sleep(seconds)
        return msvcrt.getwch().lower() if msvcrt.kbhit() else ""

else:

    def _read(seconds: float) -> str:
        import os
        import select

        ready, _, _ = select.select([sys.stdin], [], [], seconds)
        return os.read(sys.stdin.fileno(), 1).decode("ascii", "ignore").lower() if ready else ""
