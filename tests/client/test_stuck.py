"""A consumer that is stuck, with messages that were sent ahead: fault 63."""

from __future__ import annotations

import pytest
from support.waiting import until

from stiqueue.client.base import BaseClient

from .conftest import Place

SECONDS = 0.3
"""How long a lease lasts."""
TIMEOUT = 20.0


def let_leases_run_out(place: Place, times: int) -> None:
    """Wait until leases that begin now ran out, as often as that: the stuck one would have been given more by then."""
    client = place.client(queue="clock", ack_timeout=SECONDS, auto_ack=False)
    client.enq("tick")
    for number in range(times):
        assert client.deq(timeout=TIMEOUT) is not None
        until(lambda expected=number + 1: client.counts().requeued >= expected)  # type: ignore[misc]


@pytest.mark.parametrize("prefetch", [1, 30, 1_000])
def test_63_a_stuck_consumer_gets_nothing_until_it_settles_something(
    place: Place, other: BaseClient, prefetch: int
) -> None:
    other.enq_many(map(str, range(1_000)))
    loop = place.client(ack_timeout=SECONDS).consume(prefetch=prefetch)
    first = next(loop)
    until(lambda: other.counts().requeued, prefetch)
    let_leases_run_out(place, 3)
    counts = other.counts()
    assert (counts.requeued, counts.leased, counts.ready) == (prefetch, 0, 1_000)
    assert [message.attempt for message in other.peek_messages()] == [1] + [0] * 999
    assert first.ack() is False
    if place.port:  # a local loop takes when it asks
        until(lambda: other.counts().requeued, prefetch + 1)
        let_leases_run_out(place, 2)
        assert other.counts().requeued == prefetch + 1, "one message for one that was settled late"
    loop.close()  # type: ignore[attr-defined]


@pytest.mark.options(max_attempts=2)
@pytest.mark.parametrize("prefetch", [1, 30, 1_000])
def test_63_an_idle_consumer_beside_a_stuck_one_gets_all(place: Place, other: BaseClient, prefetch: int) -> None:
    other.enq_many(map(str, range(200)))
    loop = place.client(ack_timeout=SECONDS).consume(prefetch=prefetch)
    next(loop)
    done = []
    for message in place.client().consume(prefetch=10, timeout=TIMEOUT):
        done.append((int(message), message.attempt))
        if len(done) == 200:
            message.ack()
            break
    assert sorted(done) == [(number, 2 if number == 0 else 1) for number in range(200)]
    counts = other.counts()
    assert (counts.ready, counts.leased, counts.requeued, counts.dead_lettered) == (0, 0, min(prefetch, 200), 0)
    loop.close()  # type: ignore[attr-defined]
