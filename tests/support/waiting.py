"""Waiting, always with an end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

PATIENCE = 60.0
"""Seconds that something which must happen may take on a busy machine."""

PAUSE = 0.005

T = TypeVar("T")


def until(read: Callable[[], Any], expected: Any = True, within: float = PATIENCE) -> None:
    """Wait until `read` returns `expected`. For what another process or the server does, where no event tells."""
    deadline = time.monotonic() + within
    while (found := read()) != expected:
        assert time.monotonic() < deadline, f"{found!r} instead of {expected!r} after {within:g} s"
        time.sleep(PAUSE)


async def soon(read: Callable[[], Awaitable[Any]], expected: Any) -> None:
    """Wait until what is read is as expected: `until` for tasks."""
    deadline = time.monotonic() + PATIENCE
    while (found := await read()) != expected:
        assert time.monotonic() < deadline, f"{found!r} instead of {expected!r} after {PATIENCE:g} s"
        await asyncio.sleep(PAUSE)


class Call(Generic[T]):
    """A call under way in a thread of its own, which never outlives the interpreter."""

    def __init__(self, function: Callable[..., T], *arguments: Any, **options: Any) -> None:
        self._outcome: list[Any] = []

        def run() -> None:
            try:
                self._outcome[:] = [function(*arguments, **options), None]
            except BaseException as error:
                self._outcome[:] = [None, error]

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def is_over(self, within: float = 0.0) -> bool:
        """Whether it has ended, or does `within` seconds."""
        self._thread.join(within)
        return not self._thread.is_alive()

    def result(self) -> T:
        """Wait for what it returns, or raise what it raised."""
        assert self.is_over(PATIENCE), f"still under way after {PATIENCE:g} s"
        value, error = self._outcome
        if error is not None:
            raise error
        result: T = value
        return result


def run_python(program: str | Path, *arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program, or one in a file, in a new interpreter and wait for its end."""
    return subprocess.run(
        [sys.executable, *([program] if isinstance(program, Path) else ["-c", program]), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
        **options,
    )


@contextmanager
def python(program: str, *arguments: object, **options: Any) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a new interpreter, with pipes; kill it in the end if it still runs."""
    with subprocess.Popen(
        [sys.executable, "-c", program, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        watchdog = threading.Timer(PATIENCE * 2, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()
