"""Floods of HTTP/2 frames from one connection at a time: fault 39."""

from __future__ import annotations

import time

import pytest

from .flooding import FLOODS
from .goodness import (
    SLOWER,
    GoodClient,
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
GROWTH_BYTES_OF_HEADERS = 30_000 * 15 * 1024
"""How much calls with very large headers may take: so many may wait (max_pending) where the server is kept busy."""
IDLE = 0.02
"""The share of a processor that an idle server may use."""


def is_idle(server: ServerProcess, seconds: float = 0.5) -> bool:
    """Return whether a server does next to nothing for so long."""
    before = cpu_seconds(server.pid)
    time.sleep(seconds)
    return cpu_seconds(server.pid) - before <= IDLE * seconds


def flood(run: Run, seconds: float, most_p99: float) -> None:
    """Flood one server with each kind of frames for so long, with a good client beside, and another one elsewhere.

    That one's server is left in peace, so its calls tell how slow this machine is at the time.
    """
    server, control = run.server(), run.server()
    flooder = run.client("flood", "flood", "--seconds", seconds)
    flooder.wait_for("ready")
    usual_p99(server.target, 0.2)
    open_before = descriptors(server.pid)
    calls: list[float] = []
    with GoodClient(control.target) as elsewhere:
        for kind in FLOODS:
            used = resident_bytes(server.pid)
            with GoodClient(server.target) as good:
                flooder.order("go")
                _, groups, connections = flooder.wait_for("flooded", seconds + 20).split()
            grown = resident_bytes(server.pid) - used
            print(f"{kind}: {groups} on {connections} connections, {grown / MIB:.0f} MiB, ", end="")
            print(f"{len(good.seconds)} good calls, the slowest took {max(good.seconds, default=0) * 1000:.0f} ms")
            assert good.failures == []
            assert int(connections) > 0
            most = GROWTH_BYTES_OF_HEADERS if kind.startswith("headers") else GROWTH_BYTES
            # Where other work keeps the server from the processor, what it is to answer piles up for a moment.
            wait_until(
                lambda used=used, most=most: resident_bytes(server.pid) - used <= most, 20, f"memory after {kind}"
            )
            assert not server.has_ended
            calls += good.seconds
    p99 = sorted(calls)[int(len(calls) * 0.99)]
    print(f"good client: {len(calls)} calls, p99 {p99 * 1000:.1f} ms; elsewhere {elsewhere.p99 * 1000:.1f} ms")
    assert p99 <= max(most_p99, SLOWER * elsewhere.p99)
    wait_for_descriptors(server, open_before)
    wait_until(lambda: is_idle(server), 60, "an idle server")
    assert "Traceback" not in server.log
    assert len(server.log.splitlines()) <= 10


@pytest.mark.alone
@pytest.mark.slow
def test_39_floods_of_frames(run: Run) -> None:
    """0.3 s of each kind: no call of a good client fails, its p99 stays below 100 ms (50 ms in the long form).

    Memory has grown by at most 64 MiB then (with large headers by what waits at the most), and all is quiet.
    """
    flood(run, 0.3, 0.1)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_39_floods_of_frames_for_6_s(run: Run) -> None:
    """The same, 6 s of each."""
    flood(run, 6.0, 0.05)
