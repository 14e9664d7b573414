"""Which attempts are written."""

from __future__ import annotations

from stiqueue.engines.local.attempts import Attempts
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Subscription
from stiqueue.rules.entry import Entry, Properties
from stiqueue.rules.lease import Lease


def test_the_attempt_of_each_lease_that_lasted_is_recorded_once() -> None:
    """Also where one is noted after another that began later, as it may be with two threads."""
    engine = LocalEngine()
    consumer = engine.subscribe(Subscription("q", prefetch=10), lambda: None)
    attempts = Attempts()

    def lease(message_id: int, since: float) -> None:
        lease = Lease(str(message_id), Entry(message_id, b"", 0, Properties(0)), consumer, since)
        consumer.held[lease.lease_id] = lease
        attempts.add(consumer, since)

    def recorded(until: float) -> list[tuple[int, int]]:
        return sorted((lease.entry.id, lease.attempt) for _, lease in attempts.take(until))

    lease(1, 1.0)
    lease(2, 1.5)
    assert recorded(1.2) == [(1, 1)]
    lease(3, 3.0)
    lease(4, 2.9)
    lease(5, 3.5)
    lease(6, 4.0)
    del consumer.held["5"]
    assert recorded(3.5) == [(2, 1), (3, 1), (4, 1)]
    assert recorded(3.9) == []
    assert attempts
    assert recorded(4.0) == [(6, 1)]
    assert not attempts
    consumer.held.clear()
    engine.close_now()


def test_of_a_consumer_that_works_on_few_messages_at_a_time_only_those_are_recorded() -> None:
    engine = LocalEngine()
    consumer = engine.subscribe(Subscription("q", prefetch=10, concurrency=2), lambda: None)
    attempts = Attempts()
    leases = [Lease(str(each), Entry(each, b"", 0, Properties(0)), consumer, 1.0) for each in (1, 2, 3, 4)]
    consumer.held.update({lease.lease_id: lease for lease in leases})

    def recorded(until: float) -> list[int]:
        return [lease.entry.id for _, lease in attempts.take(until)]

    attempts.add(consumer, 1.0)
    assert recorded(0.5) == []
    assert attempts, "they are too young"
    assert recorded(1.0) == [1, 2]
    assert not attempts
    del consumer.held["1"]
    attempts.look_again(consumer)
    assert recorded(1.5)[-1:] == [3]
    consumer.held.clear()
    engine.close_now()
