"""100,000 malformed inputs of every kind at one pair of servers; the short forms are faults 37, 38 and 39."""

from __future__ import annotations

import resource
import socket
import time

import grpc
import pytest

from .flooding import FLOODS
from .frames import OPENING
from .fuzzing import Fuzzer
from .goodness import GoodClient, descriptors, lines_per_second, resident_bytes, threads, wait_for_descriptors
from .noise import LOUD, SILENT, connect, wait_closed
from .processes import wait_until
from .run import Run

MIB = 1 << 20
SECONDS = 20.0
INPUTS = 100_000
CONNECTIONS, CALLS, FRAMES = 50, 1_500, 20
"""Of a round: connections of each kind of noise, random calls, and groups of frames of each kind of flood."""
HALF_OPEN = 400
"""Connections of each kind of silence: 2,000 in all."""
WARM_ROUNDS = 10
"""After so many rounds memory is what it takes; until then buffers grow."""
GROWTH_BYTES = 32 * MIB


def send_frames(port: int, groups: int) -> int:
    """Send so many groups of frames of each kind, each kind on a connection of its own; return how many."""
    for kind in FLOODS.values():
        with socket.create_connection(("127.0.0.1", port), SECONDS) as connection:
            try:
                connection.sendall(OPENING + kind.begin)
                for number in range(groups):
                    connection.sendall(kind.block(2 * number + 1))
            except OSError:
                continue  # the server has hung up
    return groups * len(FLOODS)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_100_000_malformed_inputs(run: Run, certificate: list[str]) -> None:
    """No crash, no defect, no failed call of a good client; memory, threads and descriptors are back."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < 4_096:
        pytest.skip(f"needs 4,096 descriptors, there are {most}")
    plain, secure = run.server("--max-queues", "50", "--max-messages", "100"), run.server(*certificate, start=False)
    secure.start(ready=False)
    wait_until(lambda: "messages in memory" in secure.log, SECONDS, "a server with TLS")
    servers = {"plain": plain, "TLS": secure}
    open_before = {name: descriptors(server.pid) for name, server in servers.items()}
    inputs = rounds = 0
    warm: dict[str, int] = {}
    began = time.monotonic()
    with (
        grpc.insecure_channel(plain.target, [("grpc.use_local_subchannel_pool", 1)]) as channel,
        GoodClient(plain.target) as good,
    ):
        fuzzer = Fuzzer(channel, run.random)
        silent = [
            connection
            for name, kinds in SILENT.items()
            for data in kinds.values()
            for connection in connect(servers[name].port, data, HALF_OPEN)
        ]
        inputs += len(silent)
        while inputs < INPUTS:
            for name, loud in LOUD.items():
                for what, data in loud.items():
                    wait_closed(connect(servers[name].port, data, CONNECTIONS), SECONDS, f"{what} at {name}")
                    inputs += CONNECTIONS
            fuzzer.call(CALLS)
            inputs += CALLS + send_frames(plain.port, FRAMES)
            rounds += 1
            if rounds == 1:
                wait_closed(silent, SECONDS, "silent ones")
            if rounds == WARM_ROUNDS:
                warm = {name: resident_bytes(server.pid) for name, server in servers.items()}
    seconds = time.monotonic() - began
    print(f"{inputs} inputs in {seconds:.0f} s, {rounds} rounds; calls: {dict(sorted(fuzzer.codes.items()))}")
    print(f"good client: {len(good.seconds)} calls, p99 {good.p99 * 1000:.1f} ms, {len(good.failures)} failed")
    assert good.failures == []
    for name, server in servers.items():
        assert not server.has_ended
        assert "defect" not in server.log
        assert lines_per_second(server, 0, seconds) <= 10
        wait_for_descriptors(server, open_before[name])
        now = resident_bytes(server.pid)
        print(
            f"{name}: {warm[name] / MIB:.0f} MiB when warm, {now / MIB:.0f} at the end; {threads(server.pid)} threads"
        )
        assert now <= warm[name] + GROWTH_BYTES
