"""Floods of HTTP/2 frames from one connection at a time: fault 39."""

from __future__ import annotations

import time

import pytest

from .flooding import FLOODS
from .goodness import (
    GoodClient,
    assert_undisturbed,
    cpu_seconds,
    descriptors,
    resident_bytes,
    usual_p99,
    wait_for_descriptors,
)
from .processes import ServerProcess, wait_until
from .run import Run

MIB = 1 << 20
GROWTH_BYTES = 64 * MIB
HEADERS_GROWTH_BYTES = 30_000 * 15 * 1024
"""How much calls with very large headers may take: so many may wait (max_pending) where the server is kept busy."""
IDLE = 0.02
"""The share of a processor that an idle server may use."""


def is_idle(server: ServerProcess, seconds: float = 0.5) -> bool:
    """Return whether a server does next to nothing for so long."""
    before = cpu_seconds(server.pid)
    time.sleep(seconds)
    return cpu_seconds(server.pid) - before <= IDLE * seconds


def flood(run: Run, seconds: float) -> None:
    """Flood one server with each kind of frames for so long, with a good client beside."""
    server = run.server()
    before = usual_p99(server.target)
    open_before, used = descriptors(server.pid), resident_bytes(server.pid)
    for number, kind in enumerate(FLOODS):
        flooder = run.client("flood", f"flood-{number}", "--kind", kind, "--seconds", seconds)
        flooder.wait_for("ready")
        with GoodClient(server.target) as good:
            _, groups, connections = flooder.wait_for("flooded", seconds + 20).split()
        grown = resident_bytes(server.pid) - used
        print(f"{kind}: {groups} on {connections} connections, grown by {grown / MIB:.0f} MiB, ", end="")
        assert_undisturbed(good, before)
        assert int(groups) > 0
        assert grown <= (HEADERS_GROWTH_BYTES if kind.startswith("headers") else GROWTH_BYTES), kind
        assert not server.has_ended
    wait_for_descriptors(server, open_before)
    wait_until(lambda: is_idle(server), 20, "an idle server")
    assert "Traceback" not in server.log
    assert len(server.log.splitlines()) <= 10


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_39_floods_of_frames(run: Run) -> None:
    """0.5 s of each kind.

    No call of a good client fails, its p99 stays below 50 ms, memory grows by at most 64 MiB (large headers: by what
    waits at the most), and then all is quiet.
    """
    flood(run, 0.5)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_39_floods_of_frames_for_6_s(run: Run) -> None:
    """The same, 6 s of each."""
    flood(run, 6.0)
