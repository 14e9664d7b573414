"""What counts as an attempt, and what a lease that ran out costs its stream."""

from __future__ import annotations

import pytest

from stiqueue.message import Outcome, Settlement, State
from stiqueue.rules.engine import ready

from .bench import Bench
from .conftest import MakeBench


async def attempts(bench: Bench, queue: str = "q") -> list[tuple[str, int]]:
    """Return the messages and their attempts so far."""
    return [(each.entry.body.decode(), each.entry.attempt) for each in await bench.peek(queue, state=State.ALL)]


@pytest.mark.parametrize("concurrency", [1, 2, 0, 4, 9])
async def test_the_end_of_a_stream_counts_as_many_attempts_as_it_works_on(bench: Bench, concurrency: int) -> None:
    await bench.enq(*"abcd")
    worker = bench.worker(prefetch=4, concurrency=concurrency)
    assert [message.attempt for message in await worker.next()] == [1] * 4
    assert [attempt for _, attempt in await attempts(bench)] == [1] * 4
    worker.close()
    begun = concurrency or 4
    assert await attempts(bench) == [(body, int(at < begun)) for at, body in enumerate("abcd")]


async def test_a_message_is_begun_when_those_before_it_are_settled(bench: Bench) -> None:
    await bench.enq(*"abcdef")
    worker = bench.worker(prefetch=4, concurrency=1)
    a, b, c, _ = await worker.next()
    await bench.ack(a, c)
    await worker.next()
    await bench.requeue(b, delay=60.0)
    worker.close()
    assert await attempts(bench) == [("d", 1), ("e", 0), ("f", 0), ("b", 1)]


async def test_what_is_given_back_untouched_was_not_tried(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a", "b")
    worker = bench.worker(prefetch=2)
    for _ in range(3):
        a, b = await worker.next()
        assert (a.attempt, b.attempt) == (1, 1)
        assert (
            await ready(bench.engine.settle(Settlement([a.lease_id, b.lease_id], Outcome.REQUEUE, untouched=True)))
            == []
        )
    assert await bench.ack(*await worker.next()) == []
    assert (await bench.counts()).dead_lettered == 0


@pytest.mark.parametrize("named_by", ["a lease", "the lease settled last"])
async def test_a_client_that_leaves_gives_back_all_that_it_holds_as_untouched(bench: Bench, named_by: str) -> None:
    await bench.enq(*"abcd")
    worker = bench.worker(prefetch=3, concurrency=1)
    a, b, _ = await worker.next()
    await bench.ack(a)
    lease_id = b.lease_id if named_by == "a lease" else a.lease_id
    leaving = Settlement([lease_id], Outcome.REQUEUE, close_stream=True, untouched=True)
    assert await ready(bench.engine.settle(leaving)) == ([] if named_by == "a lease" else [lease_id])
    assert worker.ended()
    assert await attempts(bench) == [("b", 0), ("c", 0), ("d", 0)]


async def test_a_client_that_leaves_may_give_back_with_a_delay(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(prefetch=2, concurrency=1)
    a, _ = await worker.next()
    leaving = Settlement([a.lease_id], Outcome.REQUEUE, delay=60.0, close_stream=True, untouched=True)
    assert await ready(bench.engine.settle(leaving)) == []
    assert worker.ended()
    counts = await bench.counts()
    assert (counts.ready, counts.delayed, counts.leased) == (1, 1, 0)


async def test_what_was_handed_to_a_stream_and_never_sent_was_not_tried(bench: Bench) -> None:
    worker = bench.worker(ack_timeout=5.0)
    assert worker.nothing()
    await bench.enq("a")
    bench.pass_time(5.0)
    assert (await worker.get()).attempt == 1
    worker.close()
    assert await attempts(bench) == [("a", 1)]


async def test_only_what_was_begun_becomes_a_dead_letter(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=3)
    await bench.enq(*"abcdefghij")
    for _ in range(3):
        worker = bench.worker(prefetch=10, concurrency=1)
        await worker.next()
        worker.close()
    bench.settle_down()
    assert await bench.peek_bodies("q.dead") == ["a"]
    assert await attempts(bench) == [(body, 0) for body in "bcdefghij"]


async def test_leases_that_run_out_count_as_many_attempts_as_were_worked_on(bench: Bench) -> None:
    await bench.enq(*"abcd")
    await bench.worker(prefetch=4, concurrency=1, ack_timeout=5.0).next()
    bench.pass_time(5.0)
    assert await attempts(bench) == [("a", 1), ("b", 0), ("c", 0), ("d", 0)]


# -- a stuck client ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", [1, 3, 30])
@pytest.mark.parametrize("concurrency", [0, 1])
async def test_a_stuck_consumer_gets_nothing_until_it_settles_something(
    bench: Bench, prefetch: int, concurrency: int
) -> None:
    number = max(30, prefetch)
    await bench.enq(*map(str, range(number)))
    stuck = bench.worker(prefetch=prefetch, concurrency=concurrency, ack_timeout=5.0)
    first, *_ = await stuck.next()
    for _ in range(3):
        bench.pass_time(5.0)
        assert stuck.nothing()
    assert (await bench.counts()).requeued == prefetch
    assert await bench.extend(first, seconds=1.0) == [first.lease_id]
    assert stuck.nothing(), "an extension settles nothing"
    assert await bench.ack(first) == [first.lease_id]
    (on_trial,) = await stuck.next()
    assert stuck.nothing(), "one at a time until one is settled in time"
    assert await bench.ack(on_trial) == []
    back = await stuck.next()
    assert len(back) == min(prefetch, number - 1)


async def test_a_slow_consumer_gets_one_message_after_another_until_it_is_in_time(bench: Bench) -> None:
    await bench.enq(*"abcdef")
    slow = bench.worker(prefetch=3, ack_timeout=5.0)
    late = list(await slow.next())
    for _ in range(3):
        bench.pass_time(5.0)
        assert await bench.ack(late.pop(0)) != []
        late += await slow.next()
    assert len(late) == 3
    assert len(await bench.ack(*late[:2])) == 2
    assert slow.nothing()
    assert await bench.ack(late[2]) == []
    assert len(await slow.next()) == 3


async def test_what_ran_out_counts_against_the_credit_in_bytes_too(bench: Bench) -> None:
    await bench.enq(*["x" * 100_000] * 9)
    stuck = bench.worker(prefetch=9, prefetch_bytes=350_000, ack_timeout=5.0)
    first, *others = await stuck.next()
    bench.pass_time(5.0)
    assert stuck.nothing()
    assert await bench.ack(first) == [first.lease_id]
    (message,) = await stuck.next()
    assert await bench.ack(message) == []
    assert len(await stuck.next()) == len(others) + 1


async def test_of_a_pool_one_stuck_thread_keeps_the_others_from_nothing(bench: Bench) -> None:
    pool = bench.worker(prefetch=3, concurrency=3, ack_timeout=5.0)
    assert pool.nothing()
    await bench.enq("a")
    await pool.next()
    bench.pass_time(5.0)
    assert (await pool.get()).attempt == 2
    await bench.enq("b")
    assert (await pool.get()).body == b"b"


async def test_whoever_is_alive_is_served_first(bench: Bench) -> None:
    await bench.enq(*map(str, range(30)))
    stuck, alive = bench.worker(prefetch=30, ack_timeout=5.0), bench.worker(prefetch=3)
    await stuck.next()
    assert alive.nothing()
    bench.pass_time(5.0)
    done: list[str] = []
    while len(done) < 30:
        messages = await alive.next()
        done += [message.body.decode() for message in messages]
        await bench.ack(*messages)
    assert done == list(map(str, range(30)))
    assert stuck.nothing()


async def test_a_stream_whose_leases_ran_out_is_not_idle_before_it_settles_one(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(ack_timeout=5.0, wait=3.0)
    message = await worker.get()
    bench.pass_time(30.0)
    assert worker.nothing()
    assert await bench.take_all() == ["a"]
    await bench.ack(message)
    assert worker.nothing()
    bench.pass_time(2.0)
    assert worker.nothing()
    bench.pass_time(1.0)
    assert worker.ended()


async def test_a_lease_that_ran_out_can_close_its_stream(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(ack_timeout=5.0)
    message = await worker.get()
    bench.pass_time(5.0)
    assert await bench.ack(message, close_stream=True) == [message.lease_id]
    assert worker.ended()
    assert await attempts(bench) == [("a", 1), ("b", 0)]
