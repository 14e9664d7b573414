"""How the command sets up its process, and the event loop of every server."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import sys

from stiqueue.server import descriptors

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of `mallopt`, from malloc.h."""
KEPT_BYTES = 18 << 20
"""The most unused memory that the process keeps at the end of each heap."""
MAPPED_BYTES = 16 << 20
"""Blocks from this size on are given back to the system when they are freed."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop of uvloop if it is installed, otherwise of asyncio."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def end_event_loop(loop: asyncio.AbstractEventLoop, seconds: float) -> None:
    """Cancel what is left on `loop`, such as tasks of a library, wait for it up to `seconds`, and close the loop."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    if left:
        loop.run_until_complete(asyncio.wait(left, timeout=seconds))
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


def tune() -> None:
    """Set up this process for one busy event loop. Only for the command: `SQServer` shares the process of a program."""
    # Messages are plain tuples outside of any cycle. Looking for cycles among them after every 700 new ones took nearly
    # half of the time of a large batch.
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
    # The thread that writes the data file needs the interpreter for each of its steps. By default a busy event loop
    # keeps it for 5 ms.
    sys.setswitchinterval(0.0005)
    # Each connection is a file descriptor, and most systems allow only 1,024 by default.
    descriptors.raise_limit()
    _keep_memory()


def _keep_memory() -> None:
    """Make glibc keep the memory of a large message for the next one. With other C libraries, do nothing."""
    # By default glibc keeps at most twice the largest block, but a message of 4 MiB needs 16 MiB in three blocks. So it
    # returned them to the system each time: the next message began with 3,000 page faults, and serializing it held the
    # event loop for 2 ms, or 6 on a busy machine, instead of 0.2.
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)
