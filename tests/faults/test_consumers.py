"""Consumers that die, sleep, cancel or crowd: faults 1, 10, 12 and 35."""

from __future__ import annotations

import time

import pytest

from .checker import Expectation
from .recorder import read_history
from .run import Run

SECOND = 1_000_000_000
QUEUES = ("alone", "shared")


@pytest.mark.alone
def test_01_consumer_sigkill_holding_leases(run: Run) -> None:
    """20 consumers hold 10 leases each of 1,000 messages; 10 of them are killed.

    Their 100 messages are back at once, at their old place: a fresh consumer gets them in order, before any message
    that was never delivered. Nothing else is delivered twice.
    """
    run.server()
    values = run.fill(1_000)
    consumers = [run.client("consume", f"c{n}", "--prefetch", 10, "--then", "hold", "--once") for n in range(20)]
    for consumer in consumers:
        consumer.wait_for("holding 10")
    run.wait_for_counts(60, leased=200, ready=800)

    victims = run.random.sample(consumers, 10)
    killed = run.inject.kill(*victims)
    run.wait_for_counts(60, leased=100, ready=900)
    back = (time.monotonic_ns() - killed) / SECOND
    taken = run.take_ready()
    events = read_history(run.directory)
    redelivered = next(event.t for event in events if event.op == "deq" and event.t > killed)
    print(f"back after {back * 1000:.0f} ms, redelivered after {(redelivered - killed) / 1e6:.0f} ms")

    names = {victim.name for victim in victims}
    lost = [event.value for event in events if event.op == "deq" and event.client in names]
    held = {event.value for event in events if event.op == "deq" and event.t < killed}
    assert len(lost) == 100
    assert [each.value for each in taken[:100]] == sorted(lost, key=values.index)
    assert [each.value for each in taken[100:]] == [value for value in values if value not in held]
    assert [each.attempt for each in taken] == [2] * 100 + [1] * 800
    assert back <= 0.25
    assert redelivered - killed <= 0.5 * SECOND

    survivors = [consumer for consumer in consumers if consumer not in victims]
    for survivor in survivors:
        survivor.order("ack")
        assert survivor.wait_for("acked") == "acked 10 stale 0"
    run.stop_clients(survivors)
    assert run.drain() == []
    result = run.assert_good(Expectation(confirmed=1_000))
    assert dict(result.duplicates) == {"sigkill": 100}


@pytest.mark.alone  # compares two rates
@pytest.mark.parametrize(
    ("credit", "number"),
    [(1, 20_000), *(pytest.param(credit, 100_000, marks=pytest.mark.soak) for credit in (1, 50))],
)
def test_10_sleeping_consumer_tiny_messages(run: Run, credit: int, number: int) -> None:
    """A consumer that reads once and sleeps holds exactly what it asked for, of `number` messages of 100 bytes.

    Another consumer gets all others, as fast as without the sleeper.
    """
    run.server()
    run.fill(number // 2, name="alone", queue="alone", size=100)
    run.fill(number, name="shared", queue="shared", size=100)
    sleeper = run.client("consume", "sleeper", "--queue", "shared", "--prefetch", credit, "--then", "sleep")
    sleeper.wait_for("holding")
    run.wait_for_counts(60, "shared", leased=credit, ready=number - credit)
    others = [run.client("consume", f"other-{queue}", "--queue", queue, "--prefetch", 2_000) for queue in QUEUES]
    for queue, left in zip(QUEUES, (0, credit), strict=True):
        run.wait_for_counts(180, queue, ready=0, leased=left)
    run.stop_clients(others)
    assert run.counts("shared").acked == number - credit

    # Both were under way at the same time, so whatever else this machine was doing struck both.
    times = [[event.t for event in read_history(run.directory, other.name) if event.op == "deq"] for other in others]
    begin, end = max(each[0] for each in times), min(each[-1] for each in times)
    alone, shared = (sum(begin <= t <= end for t in each) for each in times)
    print(f"in {(end - begin) / SECOND:.2f} s: {alone} messages alone, {shared} beside the sleeper")
    assert shared >= alone / 4, "the sleeper holds up the other"
    sleeper.stop()
    assert run.drain("alone") == []
    assert len(run.drain("shared")) == credit
    run.assert_good(Expectation(confirmed=number // 2 * 3))


@pytest.mark.parametrize("rounds", [500, pytest.param(3_334, marks=pytest.mark.soak)])
def test_12_cancel_at_the_moment_of_delivery(run: Run, rounds: int) -> None:
    """3,000 (20,000) streams are cancelled 0 to 2 ms after asking: half where messages wait, half where some come in.

    Nothing stays leased to a closed stream, and nothing is lost.
    """
    run.server()
    run.fill(2_000, queue="full")
    producer = run.client("produce", "p", "--queue", "fed", "--rate", 200, "--batch", 5)
    options = ("--clients", 3, "--rounds", rounds, "--patience-ms", 2, "--prefetch", 3, "--ack", 0.1)
    storms = [run.client("storm", f"storm-{queue}", "--queue", queue, *options) for queue in ("full", "fed")]
    for storm in storms:
        assert storm.wait_for("stormed", 240) == f"stormed {3 * rounds}"
    producer.stop()
    for queue in ("full", "fed"):
        took = run.wait_for_counts(5, queue, leased=0, consumers=0)
        requeued = run.counts(queue).requeued
        print(f"{queue}: {requeued} given back, nothing leased {took * 1000:.0f} ms after the storm")
        assert requeued > rounds // 17, "the storm hit no delivery"
        run.drain(queue)
    run.assert_good(Expectation(confirmed=2_000 + 3 * rounds // 20))


def cancel_storm(run: Run, number: int) -> None:
    """Let 12 clients cancel at random while so many messages pass."""
    run.server()
    producers = [run.client("produce", f"p{n}", "--count", number // 4, "--batch", 10) for n in range(4)]
    storms = [
        run.client("storm", f"storm-{n}", "--clients", 4, "--patience-ms", 50, "--prefetch", 20, "--ack", 0.8)
        for n in range(3)
    ]
    for producer in producers:
        assert producer.wait_for("sent", 180) == f"sent {number // 4}"
    run.wait_for_counts(180, ready=0, leased=0)
    run.stop_clients()
    run.wait_for_counts(5, ready=0, leased=0, consumers=0)
    assert not [report for storm in storms for report in storm.reports if report.startswith("failed")]
    assert run.drain() == []
    result = run.assert_good(Expectation(confirmed=number))
    assert result.duplicates["stream"] > number // 200, "the storm hit no delivery"


@pytest.mark.parametrize("number", [4_000, pytest.param(20_000, marks=pytest.mark.soak)])
def test_12_cancel_storm_while_messages_pass(run: Run, number: int) -> None:
    """None is lost, invented or stranded."""
    cancel_storm(run, number)


@pytest.mark.soak
@pytest.mark.parametrize("number", range(1, 11))
def test_12_cancel_storm_ten_times(run: Run, number: int) -> None:
    """The same, ten times."""
    cancel_storm(run, 20_000)


@pytest.mark.parametrize("number", [2_000, pytest.param(10_000, marks=pytest.mark.soak)])
def test_35_unfair_crowd(run: Run, number: int) -> None:
    """100 consumers wait, many messages come one by one: each gets its share, within a factor of 2."""
    run.server()
    crowd = run.client("crowd", "crowd", "--clients", 100, "--ack", 1)
    crowd.wait_for("ready")
    assert run.counts().consumers == 100
    run.client("produce", "p", "--count", number).wait_for("sent", 180)
    run.wait_for_counts(30, ready=0, leased=0, acked=number)
    run.stop_clients()
    streams = [event.facts["stream"] for event in read_history(run.directory) if event.op == "deq"]
    shares = sorted(streams.count(f"crowd-{n}") for n in range(100))
    print(f"shares from {shares[0]} to {shares[-1]}")
    assert shares[0] >= number // 200
    assert shares[-1] <= number // 50
    assert run.drain() == []
    run.assert_good(Expectation(confirmed=number, fault=False))
