"""Requests of random bytes, broken ones, and valid ones with values at the edges: fault 38."""

from __future__ import annotations

import re
import time

import grpc
import pytest

from stiqueue.v1 import queue_pb2 as pb

from .fuzzing import Fuzzer
from .goodness import descriptors, lines_per_second, threads, usual_p99, wait_for_descriptors
from .processes import wait_until
from .run import Run

SECONDS = 10.0


def fuzz(run: Run, rounds: int) -> None:
    # What asks for little may be granted: the most that a stream may be idle is a moment.
    server = run.server("--max-queues", "50", "--max-messages", "100")
    usual_p99(server.target, 0.2)
    open_before, threads_before = descriptors(server.pid), threads(server.pid)
    began = time.monotonic()
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        fuzzer = Fuzzer(channel, run.random)
        fuzzer.call(rounds)
    seconds = time.monotonic() - began
    print(f"{rounds} calls in {seconds:.0f} s: {dict(sorted(fuzzer.codes.items()))}")
    assert not server.has_ended
    assert "defect" not in server.log
    assert lines_per_second(server, 0, seconds) <= 10
    assert fuzzer.codes["Enq", "INVALID_ARGUMENT"] > rounds / 50
    counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", each.queue) for each in counts)

    def nothing_is_left() -> bool:
        counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
        return not any(each.leased or each.consumers for each in counts)

    wait_until(nothing_is_left, SECONDS, "no lease and no consumer")
    wait_for_descriptors(server, open_before)
    assert threads(server.pid) <= threads_before + 3
    stub = run.stub()
    stub.Enq(pb.EnqRequest(queue="good", bodies=[b"a"]), timeout=SECONDS)
    response = next(stub.Deq(pb.DeqRequest(queue="good", no_ack=True, max_messages=1), timeout=SECONDS))
    assert response.messages[0].body == b"a"


def test_38_random_requests(run: Run) -> None:
    """2,000 requests of noise, flipped bits, unknown and nested fields, edge values, methods of the wrong kind.

    No crash, no exception of ours, no thread, lease or descriptor left, at most 10 lines a second in the log.
    """
    fuzz(run, 2_000)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_38_random_requests_20_000(run: Run) -> None:
    """The same, ten times as many."""
    fuzz(run, 20_000)
