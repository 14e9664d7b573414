"""What the journal is told of leases."""

from __future__ import annotations

from stiqueue.engines.local import LocalEngine
from stiqueue.engines.recording import Unrecorded
from stiqueue.entry import Entry, Properties
from stiqueue.lease import Lease
from stiqueue.message import Subscription


def test_the_attempt_of_each_lease_that_lasted_is_recorded_once() -> None:
    """Also where one is noted after another that began later, as it may be with two threads."""
    engine = LocalEngine()
    consumer = engine.subscribe(Subscription("q", prefetch=10), lambda: None)
    unrecorded = Unrecorded()

    def lease(message_id: int, since: float) -> None:
        lease = Lease(str(message_id), Entry(message_id, b"", 0, Properties(0)), consumer, since)
        consumer.held[lease.lease_id] = lease
        unrecorded.add([lease])

    def recorded(until: float) -> list[tuple[int, int]]:
        return sorted((update.entry.id, update.entry.attempt) for update in unrecorded.take(until))

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
    assert unrecorded
    assert recorded(4.0) == [(6, 1)]
    assert not unrecorded
    consumer.held.clear()
    engine.close_now()
