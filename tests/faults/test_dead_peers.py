"""Consumers whose process is stopped or whose connection is half open: faults 2, 3 and 6."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from stiqueue.v1 import queue_pb2 as pb

from .checker import Expectation
from .holding import Holder
from .proxy import Direction, Mode, Proxy
from .run import Run

EACH = 10
"""Messages that each consumer holds."""
STOPPED = "stopped"

HALF_OPEN: dict[str, Callable[[Proxy], object]] = {
    "stalled": lambda proxy: proxy.set(Mode.STALL),  # what a proxy that is stopped does
    "stalled-up": lambda proxy: proxy.set(Mode.STALL, Direction.UP),
    "stalled-down": lambda proxy: proxy.set(Mode.STALL, Direction.DOWN),
    "dropped": lambda proxy: proxy.set(Mode.DROP),
    "dropped-up": lambda proxy: proxy.set(Mode.DROP, Direction.UP),
    "dropped-down": lambda proxy: proxy.set(Mode.DROP, Direction.DOWN),
    "reset": lambda proxy: proxy.reset(),
}
"""What the proxy before a consumer does to its connection; the consumer itself lives and knows nothing of it."""
SLOW = "delayed"
"""A proxy that passes on all that the server says, half a second later: nothing is wrong with that consumer."""


def watch(run: Run, queues: list[str], seconds: float) -> tuple[dict[str, float], float]:
    """Wait until what was held in each of `queues` is ready; return after how long, and the longest look at them.

    The longest look tells how far the machine is behind: what it does in time can be seen so much later.
    """
    begin = last = time.monotonic()
    back: dict[str, float] = {}
    longest = 0.0
    while len(back) < len(queues) and time.monotonic() - begin < seconds:
        counts = {each.queue: each for each in run.stub().Cnt(pb.CntRequest(queues=queues), timeout=30).queues}
        now = time.monotonic()
        longest, last = max(longest, now - last), now
        for queue in queues:
            if queue not in back and counts[queue].ready == EACH and counts[queue].leased == 0:
                back[queue] = now - begin
        time.sleep(0.02)
    return back, longest


def assert_all_came_back(run: Run, keepalive: int, timeout: int, *options: str) -> None:
    """Break the connections of consumers in all ways at once, and stop one consumer; see when their messages are back.

    The bound is that of the fault plan: `keepalive` + `timeout` + 1 s.
    """
    run.server(*options)
    slow = [SLOW] if timeout > 1 else []  # the way there and back would take most of a shorter time-out
    with ExitStack() as stack:
        proxies = {kind: Proxy(run.servers[0].target, name=kind) for kind in (*HALF_OPEN, *slow)}
        values = {kind: run.fill(EACH, name=kind, queue=kind) for kind in (*proxies, STOPPED)}
        stopped = run.client("consume", "victim", "--queue", STOPPED, "--prefetch", EACH, "--then", "hold", "--once")
        holders = {}
        for kind, proxy in proxies.items():
            stack.enter_context(proxy)
            holders[kind] = Holder(
                run, f"holder-{kind}", target=proxy.target, queue=kind, via=proxy.name, prefetch=EACH
            )
            stack.enter_context(holders[kind])
        for holder in holders.values():
            holder.wait_holding(EACH)
        stopped.wait_for(f"holding {EACH}")

        passed = {}
        for kind in slow:
            proxies[kind].set(Mode.DELAY, Direction.DOWN, delay=0.5)
        run.inject.stop(stopped)
        for kind, harm in HALF_OPEN.items():
            run.inject.begins(kind, kind)
            assert harm(proxies[kind]) in (None, 1)
            passed[kind] = proxies[kind].passed
        broken = [*HALF_OPEN, STOPPED]
        figure = keepalive + timeout + 1
        back, lag = watch(run, broken, figure * 2 + 2)
        print({kind: f"{seconds:.2f} s" for kind, seconds in back.items()}, f"longest look {lag:.2f} s")
        assert sorted(back) == sorted(broken), "not noticed at all"
        for kind, seconds in back.items():
            assert seconds <= figure + 2 * lag, kind
        for kind in HALF_OPEN:
            if kind.startswith("dropped"):
                assert proxies[kind].dropped > 0
            run.inject.took_effect(kind, kind)
        assert proxies["stalled"].passed == passed["stalled"]
        for kind in slow:
            assert not holders[kind].has_ended.is_set(), holders[kind].how
            assert run.counts(kind).leased == EACH
            assert holders[kind].ack() == 0

        # The one that was stopped learns of it when it goes on; nobody else had its messages twice.
        run.inject.resume(stopped)
        assert stopped.wait_for("ended") != "ended OK"
        for kind in broken:
            taken = run.take_ready(kind)
            assert [each.value for each in taken] == values[kind], kind
            assert [each.attempt for each in taken] == [2] * EACH
            assert run.counts(kind).ready == run.counts(kind).leased == 0
        for kind in HALF_OPEN:
            run.inject.healed(kind)
    run.stop_clients()
    result = run.assert_no_errors(Expectation(confirmed=EACH * len(broken)))
    assert result.received == result.confirmed
    assert dict(result.duplicates) == dict.fromkeys(HALF_OPEN, EACH) | {"sigstop": EACH}


@pytest.mark.slow
def test_02_06_dead_peers_with_short_pings(run: Run) -> None:
    """Pings every second, answered within one: messages of dead peers are back within 3 s, however they died.

    Without `grpc.http2.ping_timeout_ms` this takes a minute: the test is the guard of that option too.
    """
    assert_all_came_back(run, 1, 1, "--keepalive", "1", "--keepalive-timeout", "1")


@pytest.mark.slow
def test_02_06_dead_peers_by_default(run: Run) -> None:
    """With the options as they are shipped: within 9 s. A peer that is only slow is left alone."""
    assert_all_came_back(run, 5, 3)


def assert_late_acks_are_stale(run: Run, rounds: int, wakers: int, each: int) -> None:
    """Stop consumers until others hold their messages, wake them, and let them acknowledge what they held."""
    run.server("--keepalive", "1", "--keepalive-timeout", "1")
    number = wakers * each
    clients = [run.client("consume", f"w{n}", "--prefetch", each, "--then", "keep") for n in range(wakers)]
    run.wait_for_counts(60, consumers=wakers)
    for n in range(rounds):
        run.fill(number, name=f"round{n}")
        for client in clients:
            client.wait_for(f"holding {each}")
        for client in clients:
            run.inject.stop(client)
        run.wait_for_counts(60, ready=number, leased=0)
        with Holder(run, f"other{n}", prefetch=number) as other:
            other.wait_holding(number)
            for client in clients:
                run.inject.resume(client)
            for client in clients:
                assert client.wait_for("ended") != "ended OK"
            run.wait_for_counts(60, consumers=wakers + 1)  # they are back
            for client in clients:
                client.order("ack")
            for client in clients:
                assert client.wait_for("acked") == f"acked 0 stale {each}"
            counts = run.counts()
            assert (counts.leased, counts.acked) == (number, n * number), "a late ack settled another's delivery"
            assert other.ack() == 0
            run.wait_for_counts(5, ready=0, leased=0, acked=(n + 1) * number)
    run.stop_clients()
    assert run.drain() == []
    result = run.assert_good(Expectation(confirmed=rounds * number))
    assert dict(result.duplicates) == {"sigstop": rounds * number}


@pytest.mark.slow
def test_03_late_acks_of_a_consumer_that_was_stopped(run: Run) -> None:
    """Consumers wake when others hold their messages: each of 200 late acks is stale, and settles nothing."""
    assert_late_acks_are_stale(run, rounds=1, wakers=4, each=50)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_03_late_acks_one_at_a_time(run: Run) -> None:
    """The same, 200 times one message."""
    assert_late_acks_are_stale(run, rounds=50, wakers=4, each=1)
