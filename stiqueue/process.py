"""How the command sets up its process, and the event loop of every server."""

from __future__ import annotations

import asyncio
import gc
import sys

from stiqueue import descriptors


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop where it is installed, else of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def tune() -> None:
    """Set up this process for one busy event loop; not for the class, whose process belongs to others.

    Messages are plain tuples that nothing cyclic refers to, so looking for cycles among them after every 700 new ones
    took nearly half of the time of a large batch. And the thread that writes the data file must get the interpreter
    back from a busy loop sooner than after the default of 5 ms, for each of its steps. Each connection is a file
    descriptor, of which most systems allow 1,024 unless they are asked.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    sys.setswitchinterval(0.0005)
    descriptors.raise_limit()
