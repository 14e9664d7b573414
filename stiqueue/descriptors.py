"""File descriptors: how many this process may have, and which of them are connections.

A server that runs out of them can open nothing else either, such as a log or a certificate, and leaves clients waiting
without a word. So it takes fewer connections than that.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

OTHERS = 100
"""What a server needs beside connections: the data file and those around it, logs, metrics, the libraries' own."""

_OPEN = Path("/proc/self/fd")
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Where Linux has them."""


def raise_limit() -> None:
    """Let this process have as many as it may ask for. Not for a program of others: it may rely on low numbers."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):  # macOS: "no limit" is more than it grants
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections_within(asked: int) -> int:
    """Return how many connections can be had of those `asked` for."""
    if resource is None:
        return asked
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return asked if limit == resource.RLIM_INFINITY else min(asked, max(limit - OTHERS, limit // 2))


def count_open() -> int | None:
    """Return how many this process has open; None where the system does not tell."""
    try:
        return len(os.listdir(_OPEN))
    except OSError:
        return None


def count_connections(port: int) -> int | None:
    """Return how many connections there are to the server at `port`; None where the system does not tell."""
    established = re.compile(rb"^ *\d+: [0-9A-F]+:%04X [0-9A-F:]+ 01 " % port, re.MULTILINE)
    try:
        return sum(len(established.findall(table.read_bytes())) for table in _TABLES if table.exists())
    except OSError:
        return None
