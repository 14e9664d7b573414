"""Thousands of consumers that wait: fault 34."""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path

import grpc
import pytest
from support.services import missing

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .checker import Expectation
from .goodness import resident_bytes, usual_p99
from .holding import PLAIN
from .processes import ServerProcess, wait_until
from .recorder import read_history
from .run import Run

MIB = 1 << 20
SECOND = 1_000_000_000
SPARE = 100
"""Descriptors that server and crowd need beside those of their connections."""
SENDS = 200
BUSY_CLIENTS = 2
EACH_BYTES = 60 << 10
BUSY_P99 = 0.25
"""A p99 below this is good on a machine that does other work; 20 ms where nothing else runs."""


def cpu_seconds(pid: int) -> float:
    """Return how much time a process has had of all cores."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def allow_descriptors(number: int) -> None:
    """Let this process and its children have so many descriptors; skip the test where that is not allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < number:
        missing(f"room for {number:,} file descriptors")
    if soft != resource.RLIM_INFINITY and soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))


def be_busy(server: ServerProcess, seconds: float) -> tuple[float, float]:
    """Let two clients enqueue as fast as they can; return calls a second, and seconds of the server's core a call."""
    calls = [0] * BUSY_CLIENTS
    end = time.monotonic() + seconds

    def work(number: int) -> None:
        with grpc.insecure_channel(server.target, PLAIN) as channel:
            stub = queue_pb2_grpc.QueueServiceStub(channel)
            request = pb.EnqRequest(queue="busy", bodies=[b"x" * 100])
            while time.monotonic() < end:
                stub.Enq(request, timeout=30, wait_for_ready=True)
                calls[number] += 1

    begin, before = time.monotonic(), cpu_seconds(server.pid)
    threads = [threading.Thread(target=work, args=(number,)) for number in range(BUSY_CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(calls) / (time.monotonic() - begin), (cpu_seconds(server.pid) - before) / sum(calls)


def deliveries(run: Run) -> list[float]:
    """Return how long each message took from its `Enq` to one of the crowd, in seconds."""
    sent = {event.value: event.t for event in read_history(run.directory, "p") if event.outcome == "invoke"}
    events = read_history(run.directory, "crowd")
    return sorted((event.t - sent[event.value]) / SECOND for event in events if event.op == "deq")


def be_idle(run: Run, number: int, busy: float, idle: float, noise: float) -> None:
    """Let so many consumers wait; see what they cost, that a message reaches one of them, and how they all die.

    `busy` and `idle` are the seconds of each measurement, `noise` by how much two of them may differ by chance.
    """
    allow_descriptors(number + SPARE)
    server = run.server("--keepalive", "10", "--keepalive-timeout", "10")
    be_busy(server, busy / 3)
    before, usual = be_busy(server, busy), usual_p99(server.target)
    memory = resident_bytes(server.pid)

    begin = time.monotonic()
    crowd = run.client("idle", "crowd", "--clients", number)
    crowd.wait_for("ready", 300)
    opened = time.monotonic() - begin
    assert run.counts().consumers == number
    took = resident_bytes(server.pid)
    cpu, begin = cpu_seconds(server.pid), time.monotonic()
    time.sleep(idle)
    load = (cpu_seconds(server.pid) - cpu) / (time.monotonic() - begin)

    run.client("produce", "p", "--count", SENDS, "--rate", 100).wait_for("sent", 180)
    run.wait_for_counts(60, leased=SENDS, ready=0)
    wait_until(lambda: len(deliveries(run)) == SENDS, 60, "all have come", 0.5)
    p99 = deliveries(run)[int(SENDS * 0.99)]
    beside = be_busy(server, busy)

    run.fill(number - SENDS)
    run.wait_for_counts(180, leased=number, ready=0)
    assert [report for report in crowd.reports if report.startswith("lost")] == []
    killed = run.inject.kill(crowd)
    run.wait_for_counts(180, leased=0, ready=number, consumers=0)
    back = (time.monotonic_ns() - killed) / SECOND
    after = be_busy(server, busy)
    assert len(run.take_ready()) == number
    print(
        f"{number:,} wait after {opened:.1f} s: memory {took / MIB:.0f} MiB, {(took - memory) / number / 1024:.0f} KiB "
        f"each; {load:.1%} of a core when idle; a message reaches one after {p99 * 1000:.1f} ms (p99); all leases back "
        f"{back:.2f} s after the crowd was killed; busy clients, before, beside and after the crowd:"
    )
    for calls, seconds in (before, beside, after):
        print(f"{calls:.0f} calls/s, {seconds * 1e6:.0f} us of the server's core each")
    assert took <= 600 * MIB
    assert (took - memory) / number <= EACH_BYTES
    assert load <= 0.1
    assert p99 <= max(BUSY_P99, 5 * usual)
    # The machine's time is shared with others, but what a call takes of the server's core is the server's own.
    slowed = beside[0] < 0.8 * max(before[0], after[0])
    assert not slowed or beside[1] <= noise * max(before[1], after[1])
    assert back <= 3.0 + 2 * usual
    result = run.assert_no_errors(Expectation(confirmed=number))
    assert dict(result.duplicates) == {"sigkill": number}


@pytest.mark.alone
@pytest.mark.slow
def test_34_1_000_idle_consumers(run: Run) -> None:
    """On a connection each: they take hardly any memory or CPU, and slow down nobody."""
    be_idle(run, 1_000, busy=1.0, idle=1.0, noise=1.6)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_34_9_500_idle_consumers(run: Run) -> None:
    """In 600 MiB and a tenth of a core."""
    be_idle(run, 9_500, busy=5.0, idle=30.0, noise=1.25)
