"""A server that may use little memory, and a backlog beyond it: fault 23."""

from __future__ import annotations

import sys
import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb

from .goodness import resident_bytes
from .run import Run

MIB = 1 << 20
LIMIT = 320 * MIB
SECONDS = 20.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")


def fill(run: Run, size: int, most: int = 1 << 62) -> int:
    """Enqueue 1 MB at a time until that is refused, or `most` bytes are in; return how many messages were confirmed."""
    confirmed, batch = 0, min(1_000, 1_000_000 // size)
    while confirmed * size < most:
        bodies = [(b"%d " % (confirmed + n)).ljust(size) for n in range(batch)]
        try:
            run.stub().Enq(pb.EnqRequest(bodies=bodies), timeout=SECONDS)
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, error.details()  # noqa: PT017
            assert "max_bytes is 167,772,160" in (error.details() or "")  # noqa: PT017
            break
        confirmed += batch
    return confirmed


def drain(run: Run, confirmed: int) -> None:
    """Take everything, in order."""
    expected = 0
    request = pb.DeqRequest(no_ack=True, prefetch=1_000, wait=Duration())
    for response in run.stub().Deq(request, timeout=400):
        for message in response.messages:
            assert message.body.startswith(b"%d " % expected)
            expected += 1
    assert expected == confirmed


@pytest.mark.parametrize("size", [100_000, pytest.param(100, marks=pytest.mark.soak)])
def test_23_messages_in_memory(run: Run, size: int) -> None:
    """New messages are refused at half of the memory, before the system ends the server; then all goes on."""
    server = run.server(start=False)
    server.limits = {"d": LIMIT >> 10}
    server.start()
    confirmed = fill(run, size)
    print(f"{confirmed:,} messages of {size:,} bytes took {resident_bytes(server.pid) / MIB:.0f} MiB")
    assert 0.25 * LIMIT < confirmed * (size + 200) <= LIMIT / 2
    drain(run, confirmed)
    drain(run, fill(run, size, LIMIT // 4))
    assert not server.has_ended
    assert "MemoryError" not in server.log


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_23_messages_in_a_file(run: Run) -> None:
    """A backlog of twice the memory is taken, survives a kill, and is delivered."""
    server = run.server("--data", "stiqueue.db", start=False)
    server.limits = {"d": LIMIT >> 10}
    server.start()
    confirmed = fill(run, 10_000, 2 * LIMIT)
    print(f"{confirmed:,} messages took {resident_bytes(server.pid) / MIB:.0f} MiB of memory")
    run.inject.kill(server)
    began = time.monotonic()
    run.inject.restart(server)
    print(f"started again in {time.monotonic() - began:.1f} s")
    drain(run, confirmed)
    assert "MemoryError" not in server.log
