"""Ports for servers that are away for a while, or are to be absent: nobody else takes them meanwhile."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import socket

PORTS = range(20_000, 32_768)
"""Below those that the system hands out, for port 0 and for outgoing connections."""
SLICES = 16
"""Each worker of pytest-xdist has ports of its own, in turn, so that a port is free for long before it comes again."""

_SIZE = len(PORTS) // SLICES
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % SLICES
_SLICE = PORTS[_WORKER * _SIZE : (_WORKER + 1) * _SIZE]
_next = itertools.count(random.SystemRandom().randrange(_SIZE))


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port on which nobody listens."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in itertools.islice(_next, _SIZE):
        port = _SLICE[number % _SIZE]
        with socket.socket(family) as probe, contextlib.suppress(OSError):
            probe.bind((host, port))
            return port
    raise RuntimeError("no free port found")
