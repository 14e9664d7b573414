"""What this machine, or the container on it, has."""

from __future__ import annotations

import os
from pathlib import Path

_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where Linux tells a container's memory limit: control groups of version 2, of version 1."""


def memory_bytes() -> int:
    """Return how much memory this process may use at the most: the container's limit, or what the machine has."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 32
    return min(installed, *(_read(Path(limit), installed) for limit in _LIMITS))


def _read(limit: Path, otherwise: int) -> int:
    try:
        return int(limit.read_text())
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return otherwise
