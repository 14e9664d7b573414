"""Handles SIGINT (Ctrl-C), SIGTERM and SIGHUP.

No handler raises: an exception in the middle of a call can leave gRPC in a state in which closing its channel hangs. A
command dies of the signal, which loses nothing, because the server gives back the messages of its connection. Commands
that can do better catch the signals.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Any

DEADLY = [signal.SIGINT, signal.SIGTERM]
CAUGHT = [*DEADLY, signal.SIGHUP] if sys.platform != "win32" else DEADLY

Handler = Callable[[int, FrameType | None], Any] | signal.Handlers

_last_words: list[Callable[[], str]] = []


@contextlib.contextmanager
def deadly() -> Iterator[None]:
    """Die of signals at once: a Python handler would have to wait for the interpreter."""
    with _handling(DEADLY, signal.SIG_DFL):
        yield


@contextlib.contextmanager
def last_words(say: Callable[[], str] = str) -> Iterator[None]:
    """Restore the terminal and print `say()`, such as the progress, if the command dies of a signal."""
    _last_words.append(say)
    try:
        with _handling(DEADLY, _die):
            yield
    finally:
        _last_words.remove(say)


@contextlib.contextmanager
def caught() -> Iterator[list[int]]:
    """Yield a list that collects signals, instead of dying of them."""
    numbers: list[int] = []
    with _handling(CAUGHT, lambda number, frame: numbers.append(number)):
        yield numbers


@contextlib.contextmanager
def _handling(numbers: Sequence[int], handler: Handler) -> Iterator[None]:
    """Install `handler` for signals, except those that the parent process ignores; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in heard}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def exit_code(number: int) -> int:
    """Return the exit code that shells report for a command ended by signal `number`."""
    return 128 + number


def _die(number: int, frame: FrameType | None) -> None:
    words = "".join(f"stiqueue: {said}\n" for say in _last_words if (said := say()))
    if os.isatty(2):
        # Below the ^C; clear the progress bar and show the cursor that it may have hidden.
        words = f"\n\x1b[K\x1b[?25h{words}"
    with contextlib.suppress(OSError):
        os.write(2, words.encode())
    if os.name == "posix":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(exit_code(number))
