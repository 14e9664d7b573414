"""What this machine, or the container on it, has."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


def memory_bytes() -> int:
    """Return how much memory this process may use at the most: the smallest of all limits, or what the machine has."""
    installed = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 1 << 32
    return min([installed, *_group_limits(), *_process_limits()])


def _group_limits() -> Iterator[int]:
    """Yield the limits of control groups: of a container, of a systemd unit."""
    # Of version 2, this process's own group where a container hides the others; of version 1.
    yield from _read(_GROUPS / "memory.max")
    yield from _read(_GROUPS / "memory/memory.limit_in_bytes")
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        number, _, path = line.split(":", 2)
        if number == "0":  # version 2: what holds for a group holds for those within it
            for group in (Path(path), *Path(path).parents):
                yield from _read(_GROUPS / str(group).lstrip("/") / "memory.max")


def _process_limits() -> Iterator[int]:
    """Yield the limits of ``ulimit``."""
    if resource is not None:
        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            soft, _ = resource.getrlimit(kind)
            if soft != resource.RLIM_INFINITY:
                yield soft


def _read(limit: Path) -> Iterator[int]:
    try:
        yield int(limit.read_text())
    except (OSError, ValueError):  # there is no such file, or it says "max"
        return
