"""File descriptors: how many this process may have, and which of them are connections.

A server without free descriptors cannot open a log or a certificate either, and lets clients wait silently. So it
accepts fewer connections than it has descriptors.
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
"""Descriptors reserved for everything except connections: data file, side files, logs, metrics, libraries."""

_OPEN = Path("/proc/self/fd")
_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))
"""Linux lists the TCP connections here."""


def raise_limit() -> None:
    """Raise the soft limit to the hard limit. Only for the command: another program may rely on low descriptors."""
    if resource is not None:
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        with contextlib.suppress(OSError, ValueError):  # macOS: "no limit" is more than it grants
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def connections_within(asked: int) -> int:
    """Return the number of connections, at most `asked`, for which this process has descriptors."""
    if resource is None:
        return asked
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return asked if limit == resource.RLIM_INFINITY else min(asked, max(limit - OTHERS, limit // 2))


def count_open() -> int | None:
    """Return the number of open descriptors; None if the system does not report it."""
    try:
        return len(os.listdir(_OPEN))
    except OSError:
        return None


def count_connections(port: int) -> int | None:
    """Return the number of connections to the server at `port`; None if the system does not report it."""
    established = re.compile(rb"^ *\d+: [0-9A-F]+:%04X [0-9A-F:]+ 01 " % port, re.MULTILINE)
    try:
        return sum(len(established.findall(table.read_bytes())) for table in _TABLES if table.exists())
    except OSError:
        return None
