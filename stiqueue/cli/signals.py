"""What SIGINT (Ctrl-C), SIGTERM and a terminal that goes away do.

Never an exception: raised in the middle of a call it can leave gRPC in a state in which closing its channel waits for
ever. A command dies of the signal, which loses nothing: the server gives back what its connection held. One that can
do better catches them.
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
    """Die of signals at once: without a handler in Python, which would have to wait for its turn."""
    with _handling(DEADLY, signal.SIG_DFL):
        yield


@contextlib.contextmanager
def last_words(say: Callable[[], str] = str) -> Iterator[None]:
    """Let a command that dies of a signal leave the terminal as it was, and tell how far it came."""
    _last_words.append(say)
    try:
        with _handling(DEADLY, _die):
            yield
    finally:
        _last_words.remove(say)


@contextlib.contextmanager
def caught() -> Iterator[list[int]]:
    """Gather signals in a list instead of dying of them."""
    numbers: list[int] = []
    with _handling(CAUGHT, lambda number, frame: numbers.append(number)):
        yield numbers


@contextlib.contextmanager
def _handling(numbers: Sequence[int], handler: Handler) -> Iterator[None]:
    """Call `handler` at signals, except those that our parent wants to be ignored; only in the main thread."""
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
    """Return the exit code of a command that a signal ended, as shells count."""
    return 128 + number


def _die(number: int, frame: FrameType | None) -> None:
    words = "".join(f"stiqueue: {said}\n" for say in _last_words if (said := say()))
    if os.isatty(2):
        # Below the ^C, without a progress bar, and with the cursor that it may have hidden.
        words = f"\n\x1b[K\x1b[?25h{words}"
    with contextlib.suppress(OSError):
        os.write(2, words.encode())
    if os.name == "posix":
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(exit_code(number))
