"""What becomes of leases when a consumer, or the engine, goes: nothing is counted that was not delivered."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.clock import FakeClock

from stiqueue.engines.local.attempts import RECORD_SECONDS
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Batch, PeekQuery, State, Subscription
from stiqueue.rules.entry import Peeked

from .desk import as_killed, enqueue, opened, take


def peek(engine: LocalEngine, queue: str = "default") -> list[Peeked]:
    return [each for chunk in engine.peek_now(PeekQuery(queue, state=State.ALL)) for each in chunk]


def nothing() -> None:
    """Do not wake anybody."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_close_does_not_hand_what_one_consumer_held_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as engine:
        enqueue(engine, b"a")
        consumers = [engine.subscribe(Subscription("default"), nothing) for _ in range(4)]
        assert [len(consumer.take() or ()) for consumer in consumers] == [1, 0, 0, 0]
    with opened(path) as engine:
        engine.flush().result()
        assert [each.entry.attempt for each in peek(engine)] == [1]


def test_a_lease_that_ran_out_before_it_was_looked_at_is_not_delivered(clock: FakeClock) -> None:
    engine = LocalEngine(clock=clock)
    slow = engine.subscribe(Subscription("default", ack_timeout=2.0), nothing)
    assert slow.take() == []
    engine.submit(Batch("default", [b"a"]))  # handed to the consumer that waits, which does not ask for it
    quick = engine.subscribe(Subscription("default"), nothing)
    assert quick.take() == []
    clock.advance(2.0)
    engine.tick()
    assert [lease.attempt for lease in quick.take() or ()] == [1]  # it was never sent to the other
    assert slow.take() == []
    engine.close_now()


def test_leases_that_run_out_together_become_dead_letters_in_order(clock: FakeClock) -> None:
    engine = LocalEngine(max_attempts=1, clock=clock)
    engine.submit(Batch("default", [b"%d" % each for each in range(20)]))
    consumer = engine.subscribe(Subscription("default", prefetch=20, ack_timeout=1.0), nothing)
    assert len(consumer.take() or ()) == 20
    clock.advance(1.0)
    engine.tick()
    assert [int(each.entry.body) for each in peek(engine, "default.dead")] == list(range(20))
    engine.close_now()


def test_an_expired_message_has_no_age(clock: FakeClock) -> None:
    engine = LocalEngine(clock=clock)
    engine.submit(Batch("default", [b"a"]))
    engine.submit(Batch("default", [b"b"], ttl=1.0))
    clock.advance(1.0)
    engine.tick()
    (lease,) = engine.subscribe(Subscription("default"), nothing).take() or ()
    (counts,) = engine.counts_now(["default"])
    assert (lease.body, counts.ready, counts.oldest_ready_age_ms) == (b"a", 0, 0)
    engine.close_now()


@pytest.mark.parametrize("more", [{}, {"delay": 1.0}, {"ttl": 5.0}, {"delay": 1.0, "ttl": 5.0}], ids=str)
def test_a_crash_during_the_last_delivery_makes_a_dead_letter_once(
    tmp_path: Path, clock: FakeClock, more: dict[str, float]
) -> None:
    with opened(tmp_path / "old.db", max_attempts=2, clock=clock) as engine:
        enqueue(engine, b"a", **more)
        clock.advance(1.0)
        engine.tick()
        (lease,) = take(engine, 1)
        lease.owner.close()
        (lease,) = take(engine, 1)
        assert lease.attempt == 2
        clock.advance(RECORD_SECONDS)
        engine.tick()
        engine.flush().result()
        as_killed(tmp_path / "old.db", tmp_path / "new.db")
    with opened(tmp_path / "new.db", max_attempts=2, clock=clock) as engine:
        for _ in range(2):
            engine.flush().result()
        assert (peek(engine), [each.entry.body for each in peek(engine, "default.dead")]) == ([], [b"a"])
        clock.advance(10.0)
        engine.tick()  # when its time to live is over
        engine.flush().result()
        (counts,) = engine.counts_now(["default"])
        assert (counts.expired, counts.dead_lettered, counts.bytes) == (0, 1, 0)
