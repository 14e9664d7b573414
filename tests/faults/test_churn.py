"""Consumers that come and go, and die, without end: fault 11."""

from __future__ import annotations

import time

import pytest

from .checker import Expectation
from .goodness import descriptors, resident_bytes, threads
from .processes import ClientProcess, ServerProcess, wait_until
from .run import Run

MIB = 1 << 20
TASKS = 20
"""Consumers of each process, on 2 connections."""
SETTLE_SECONDS = 20.0
FEW = 5
"""Connections and threads of others: the test's own, those that are being closed, and gRPC's as it needs them."""


class Size:
    """What a server takes of its machine."""

    def __init__(self, server: ServerProcess) -> None:
        """Look."""
        self.memory = resident_bytes(server.pid)
        self.descriptors = descriptors(server.pid)
        self.threads = threads(server.pid)

    def __str__(self) -> str:
        return f"{self.memory / MIB:.0f} MiB, {self.descriptors} descriptors, {self.threads} threads"


def churn(run: Run, processes: int, kills: int, every: float, warm: int, growth: float) -> None:
    """Let consumers come and go while processes full of them are killed and others take their place.

    The server is measured once `warm` messages are acknowledged; `growth` is what its memory may come to from then on.
    """
    server = run.server()
    number = 0

    def start() -> ClientProcess:
        nonlocal number
        number += 1
        client = run.client("churn", f"churn{number}", "--clients", TASKS)
        client.wait_for("ready")
        return client

    producer = run.client("produce", "p", "--rate", 100, "--batch", 5)
    crowd = [start() for _ in range(processes)]
    wait_until(lambda: run.counts().acked >= warm, 120, "churn")
    early = Size(server)
    for _ in range(kills):
        time.sleep(every)
        victim = crowd.pop(run.random.randrange(len(crowd)))
        run.inject.kill(victim)
        crowd.append(start())
    late = Size(server)
    producer.stop()
    run.stop_clients()
    run.wait_for_counts(SETTLE_SECONDS, leased=0, consumers=0)
    counts = run.counts()
    sent = int(next(report for report in producer.reports if report.startswith("sent")).split()[1])
    assert counts.ready + counts.acked == counts.enqueued == sent
    wait_until(lambda: descriptors(server.pid) <= early.descriptors + FEW, SETTLE_SECONDS, "descriptors are closed")
    after = Size(server)
    print(f"{sent} messages, {counts.requeued} given back; {early}; at the end {late}; after it {after}")
    assert counts.requeued > warm / 10, "hardly any consumer has left with a message"
    assert after.memory <= growth * early.memory
    assert after.threads <= early.threads + FEW
    run.drain()
    result = run.assert_good(Expectation(confirmed=warm, ordered=False))
    assert result.duplicates["nack"]
    assert result.duplicates["stream"]
    failed = [report for client in crowd for report in client.reports if report.startswith("failed")]
    assert failed == []


@pytest.mark.slow
def test_11_consumer_churn(run: Run) -> None:
    """60 consumers on 6 connections take 1 to 5 messages and ack, give back, leave or are killed.

    Nothing is lost, seen after its ack, or held by two; memory, descriptors and threads are what they were.
    """
    churn(run, processes=3, kills=2, every=1.5, warm=300, growth=1.2)  # it has not been warm for long


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_11_consumer_churn_for_a_minute(run: Run) -> None:
    """The same with 200 on 20 connections, 40 times killed 20 at once."""
    churn(run, processes=10, kills=40, every=1.5, warm=2_000, growth=1.1)
