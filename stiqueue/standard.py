"""The standard streams of a command's process, each of which may be closed, full or without a reader."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

_STREAMS = (("stdin", os.O_RDONLY, "r"), ("stdout", os.O_WRONLY, "w"), ("stderr", os.O_WRONLY, "w"))

closed: set[str] = set()
"""The names of those that were closed when the command began."""


@contextlib.contextmanager
def streams() -> Iterator[None]:
    """Let a command run, and its exit code stand, whatever its standard streams are.

    At the start /dev/null takes the place of those that are closed. Otherwise the next file or socket that is opened
    would get the number 1 or 2, and with it all that is written to stdout or stderr: also a data file. In the end what
    a stream could not take is dropped: the interpreter would try once more, complain and end with 120.
    """
    for number, (name, flags, mode) in enumerate(_STREAMS):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # gets the lowest number that is free, which is this one
            os.set_inheritable(number, True)  # for commands that this one runs
        if getattr(sys, name) is None:
            closed.add(name)
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
    try:
        yield
    finally:
        settle()


def settle() -> None:
    """Drop what stdout and stderr cannot take."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def say(text: str) -> None:
    """Write a line to stderr, as far as it takes one: no failure of a command is hidden behind a failing message."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)
