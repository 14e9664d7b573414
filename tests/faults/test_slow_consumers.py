"""Consumers that are stuck or slow, while all is well with their connection: faults 4 and 9."""

from __future__ import annotations

import time
from itertools import pairwise
from statistics import median

import pytest

from stiqueue.limits import MESSAGE_ROOM
from stiqueue.v1 import queue_pb2 as pb

from .checker import Expectation
from .goodness import resident_bytes
from .holding import Holder
from .processes import ClientProcess, ServerProcess, wait_until
from .recorder import Event, read_history
from .run import Run

SECOND = 1_000_000_000
MIB = 1 << 20
LIMIT_SECONDS = 2


@pytest.mark.slow
def test_04_stuck_handler(run: Run) -> None:
    """Two consumers hold a message for ever, and answer pings. With a time limit it is back after 2 to 2.5 s.

    Without one it stays with its consumer, and the age of the oldest lease tells.
    """
    run.server()
    with (
        Holder(run, "stuck", queue="limited", ack_timeout=LIMIT_SECONDS) as stuck,
        Holder(run, "stuck-for-ever", queue="unlimited") as for_ever,
        Holder(run, "next", queue="anchor") as anchor,
    ):
        run.fill(1, name="unlimited", queue="unlimited")
        for_ever.wait_holding(1)
        sent = time.monotonic()
        run.fill(1, name="limited", queue="limited")
        stuck.wait_holding(1)
        with Holder(run, "other", queue="limited") as other:
            other.wait_holding(1)
            asked = time.monotonic()
            run.fill(1, name="anchor", queue="anchor")
            anchor.wait_holding(1)
            delivery = anchor.times[0] - asked  # what any delivery takes on this machine, now
            took = other.times[0] - stuck.times[0]
            print(f"given to another after {took:.3f} s, a delivery takes {delivery:.3f} s")
            assert other.times[0] - sent >= LIMIT_SECONDS
            assert took <= LIMIT_SECONDS + 0.5 + 2 * delivery
            assert other.held[0].attempt == 2
            assert stuck.ack() == 1
            assert other.ack() == 0
        counts = run.counts("unlimited")
        assert counts.leased == 1
        held_ms = (time.monotonic() - for_ever.times[0]) * 1000
        assert LIMIT_SECONDS * 1000 <= counts.oldest_lease_age_ms <= held_ms + 5_000
        assert not for_ever.has_ended.is_set()
        assert for_ever.ack() == 0
        assert anchor.ack() == 0
    assert run.take_ready("limited") == run.take_ready("unlimited") == []
    run.assert_no_errors(Expectation(confirmed=3))


LARGE = 4 * MIB - MESSAGE_ROOM
"""The largest message that there may be."""
CREDIT = 3
READERS = 8


def latencies(events: list[Event], crowd: str, begin: int, end: int) -> tuple[float, float]:
    """Return of what came to a crowd in that time: the p99 from `Enq` to delivery, and the longest gap, in seconds.

    Both are medians over the seconds of that time: a large message is read in each of them, while the machine lets a
    process wait for its core in some.
    """
    sent = {event.value: event.t for event in events if event.op == "enq" and event.outcome == "invoke"}
    times = [
        (event.t, event.t - sent[event.value])
        for event in events
        if event.op == "deq" and event.client == crowd and begin <= event.t < end
    ]
    p99s, gaps = [], []
    for start in range(begin, end - SECOND, SECOND):
        came = [t for t, _ in times if start <= t < start + SECOND]
        gaps.append(max(after - before for before, after in pairwise([start, *came, start + SECOND])))
        if came:
            taken = sorted(latency for t, latency in times if start <= t < start + SECOND)
            p99s.append(taken[int(len(taken) * 0.99)])
    return median(p99s) / SECOND, median(gaps) / SECOND


def move_small_messages(run: Run, server: ServerProcess) -> list[ClientProcess]:
    """Let a producer and 8 consumers move small messages; return once they do, the producer first."""
    name, options = server.name, ("--queue", "small")
    crowd = run.client("crowd", f"crowd-{name}", *options, "--clients", READERS, "--ack", 1, target=server.target)
    crowd.wait_for("ready")
    producer = run.client("produce", f"p-{name}", *options, "--rate", 100, "--size", 100, target=server.target)
    request = pb.CntRequest(queues=["small"])
    wait_until(lambda: run.stub(server.target).Cnt(request, timeout=10).queues[0].acked >= 100, 90, "load")
    return [producer, crowd]


def slow_reader(run: Run, number: int, reads: int) -> None:
    """Let one consumer read a large message a second, `reads` of `number`, while others move small ones.

    The same small ones are moved on another server meanwhile, which no slow consumer disturbs.
    """
    server, calm = run.server(), run.server()
    run.fill(1, name="warm", queue="large", size=LARGE)  # what one large message takes for ever, on both sides
    run.take_ready("large")
    for n in range(number):
        run.fill(1, name=f"large{n}", queue="large", size=LARGE)
    clients = [*move_small_messages(run, server), *move_small_messages(run, calm)]

    memory = resident_bytes(server.pid)
    slow = run.client("consume", "slow", "--queue", "large", "--prefetch", CREDIT, "--think", 1)
    begin = time.monotonic_ns()
    most_held, most_memory = 0, memory
    while run.counts("large").acked < reads + 1:
        counts = run.counts("large")
        most_held = max(most_held, counts.leased)
        most_memory = max(most_memory, resident_bytes(server.pid))
        assert time.monotonic_ns() - begin < 60 * number * SECOND
        time.sleep(0.05)
    end = time.monotonic_ns()
    slow.stop()
    run.stop_clients(clients[::2])
    run.wait_for_counts(60, "small", ready=0, leased=0)
    run.stop_clients(clients[1::2])

    events = read_history(run.directory)
    usual, usual_gap = latencies(events, f"crowd-{calm.name}", begin, end)
    p99, gap = latencies(events, f"crowd-{server.name}", begin, end)
    print(
        f"p99 {p99 * 1000:.1f} ms, without the slow one {usual * 1000:.1f} ms; longest gap {gap * 1000:.0f} "
        f"and {usual_gap * 1000:.0f} ms; it held {most_held}; memory {(most_memory - memory) / MIB:+.0f} MiB"
    )
    assert most_held == CREDIT
    assert most_memory - memory <= CREDIT * 4 * MIB * 3
    assert p99 <= 0.25 + 5 * usual
    assert gap <= 0.25 + 3 * usual_gap
    run.take_ready("large")
    run.wait_for_counts(5, "large", ready=0, leased=0)
    result = run.assert_no_errors(Expectation(confirmed=number))
    assert result.received == result.confirmed


@pytest.mark.alone
@pytest.mark.slow
def test_09_slow_consumer_of_large_messages(run: Run) -> None:
    """It reads 4 MiB a second and holds 3 at a time; 8 others do not notice, and the server's memory does not either.

    Others: p99 at most 5 times that without it, no gap of more than 250 ms, and what else the machine does.
    """
    slow_reader(run, number=8, reads=4)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_09_slow_consumer_of_50_large_messages(run: Run) -> None:
    """The same with 50 messages, all of them read."""
    slow_reader(run, number=50, reads=50)
