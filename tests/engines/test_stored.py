"""Single messages of a queue of which most is only in the data file."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from support.waiting import until

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Outcome, Settlement, Subscription
from stiqueue.rules.lane import Window
from stiqueue.rules.lease import Lease

from .desk import PATIENCE, ack, bodies, drain, enqueue, opened

SMALL = Window(50, 1 << 20)


def fill(engine: LocalEngine, number: int) -> None:
    """Enqueue messages with ids and bodies from 1 on, the first 60 of which are in memory."""
    enqueue(engine, *(b"%d" % each for each in range(1, 61)))
    enqueue(engine, *(b"%d" % each for each in range(61, number + 1)))


def fetch(engine: LocalEngine, *ids: int, prefetch: int = 10_000, missing: int = 0) -> list[Lease]:
    """Lease messages by their ids, which the consumer keeps; so many of them are not there."""
    consumer = engine.subscribe(Subscription("default", prefetch=prefetch, ids=ids))
    leases: list[Lease] = []
    while len(leases) < len(ids) - missing and (more := consumer.take_waiting()) is not None:
        leases += more
    return leases


def test_they_are_read_by_themselves(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        fill(engine, 5_000)
        (lane,) = engine._queues.open("default").backlog.ready.lanes.values()
        stored = lane.stored
        assert stored > 4_000
        assert bodies(fetch(engine, 4_000, 2, 3_000, 9_999, missing=1)) == [b"4000", b"2", b"3000"]
        assert lane.stored == stored - 2
        (counts,) = engine.counts_now(["default"])
        assert (counts.ready, counts.leased) == (4_997, 3)


def test_all_others_come_in_order_whatever_became_of_some(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        fill(engine, 5_000)
        done = range(1_000, 5_000, 500)
        assert ack(engine, fetch(engine, *done)) == []
        back = fetch(engine, *range(1_100, 5_000, 500))
        back[0].owner.close()
        expected = [b"%d" % number for number in range(1, 5_001) if number not in done]
        assert bodies(drain(engine)) == expected
        (counts,) = engine.counts_now(["default"])
        assert (counts.ready, counts.leased, counts.bytes) == (0, 0, 0)


@pytest.mark.slow
def test_a_queue_of_which_only_single_messages_are_left(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        fill(engine, 3_000)
        assert ack(engine, fetch(engine, *range(60, 3_001))) == []
        assert len(drain(engine)) == 59
        enqueue(engine, b"last")
        assert bodies(drain(engine)) == [b"last"]


def test_a_message_that_expired_in_the_file_is_not_there(tmp_path: Path) -> None:
    from support.clock import FakeClock

    clock = FakeClock()
    with opened(tmp_path / "queue.db", window=SMALL, clock=clock) as engine:
        enqueue(engine, *[b"a"] * 1_000)
        enqueue(engine, *[b"a"] * 2_000)
        enqueue(engine, *[b"b"] * 3_000, ttl=5.0)
        clock.advance(5.0)
        assert fetch(engine, 4_000, 5_000, missing=0) == []
        assert len(drain(engine)) == 3_000


def test_a_large_message_is_read_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        enqueue(engine, *[b"a"] * 100)
        for _ in range(6):
            enqueue(engine, b"x" * (3 << 20))
        consumer = engine.subscribe(Subscription("default", prefetch=10, prefetch_bytes=1 << 30, ids=range(101, 107)))
        found = [consumer.take_waiting() for _ in range(6)]
        assert [[lease.id for lease in leases or ()] for leases in found] == [[number] for number in range(101, 107)]


@pytest.mark.parametrize("number", range(20))
def test_random_histories(tmp_path: Path, number: int) -> None:
    """Nothing is lost, doubled or out of order, whatever is done by ids while the queue is read and drained."""
    chance = random.Random(number)
    path = tmp_path / "queue.db"
    left: dict[int, bytes] = {}
    with opened(path, window=SMALL) as engine:
        for _ in range(chance.randrange(5, 15)):
            batch = [b"%d" % chance.randrange(10**9) for _ in range(chance.choice([1, 3, 200, 400]))]
            first = enqueue(engine, *batch).first_id
            left |= dict(enumerate(batch, first))
            for _ in range(chance.randrange(4)):
                ids = chance.sample(sorted(left), min(len(left), chance.choice([1, 5, 150])))
                leases = fetch(engine, *ids, prefetch=chance.choice([150, 10_000]))
                assert [(lease.id, lease.body) for lease in leases] == [(each, left[each]) for each in ids]
                how = chance.choice(["ack", "requeue", "close", "delay", "some"])
                if how == "ack":
                    assert ack(engine, leases) == []
                    for each in ids:
                        del left[each]
                elif how == "some":
                    assert ack(engine, leases[::2]) == []
                    for each in ids[::2]:
                        del left[each]
                elif how in ("requeue", "delay"):
                    settlement = Settlement(
                        [lease.lease_id for lease in leases], Outcome.REQUEUE, 1e-6 if how == "delay" else 0.0
                    )
                    answer = engine.settle_now(settlement)
                    assert (answer if isinstance(answer, list) else answer.result(PATIENCE)) == []
                if leases:
                    leases[0].owner.close()
            if chance.random() < 0.5:
                taker = engine.subscribe(Subscription("default", prefetch=chance.choice([1, 100]), wait=0.0))
                taken = taker.take_waiting() or []
                assert ack(engine, taken) == []
                for lease in taken:
                    assert left.pop(lease.id) == lease.body
                taker.close()
            (counts,) = engine.counts_now(["default"])
            assert counts.ready + counts.delayed == len(left)
        if number % 2:
            engine.flush().result(PATIENCE)
    with opened(path, window=SMALL) as engine:
        # What was given back with a delay that is over counts as delayed until the engine's clock ticks.
        until(lambda: sum(each.delayed for each in engine.counts_now(["default"])), 0)
        drained = drain(engine)
        assert {lease.id: lease.body for lease in drained} == left
        assert all(lease.attempt == 1 for lease in drained)
