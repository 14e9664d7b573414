"""Leases: settling, giving back, attempts and dead letters."""

from __future__ import annotations

import pytest

from stiqueue.message import Outcome, Settlement, State
from stiqueue.rules.engine import ready

from .bench import Bench
from .conftest import MakeBench

ENDINGS = [Outcome.ACK, Outcome.REQUEUE, Outcome.DEAD_LETTER]


async def test_an_acked_message_is_gone(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    assert await bench.ack(await worker.get()) == []
    worker.close()
    assert await bench.peek_bodies(state=State.ALL) == ["b"]


async def test_many_leases_are_settled_in_one_call(bench: Bench) -> None:
    await bench.enq("a", "b", "c", "d")
    worker = bench.worker(prefetch=4)
    a, b, c, d = await worker.next()
    assert await bench.ack(a, c) == []
    assert await bench.requeue(b, d) == []
    assert await worker.bodies() == ["b", "d"]


async def test_leases_of_several_consumers_and_queues_are_settled_in_one_call(bench: Bench) -> None:
    await bench.enq("a", queue="one")
    await bench.enq("b", queue="two")
    a, b = await bench.worker("one").get(), await bench.worker("two").get()
    assert await bench.ack(a, b) == []
    assert (await bench.counts("one")).acked == (await bench.counts("two")).acked == 1


async def test_a_second_ack_is_stale_and_harmless(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    message = await worker.get()
    assert await bench.ack(message) == []
    assert await bench.ack(message) == [message.lease_id]
    assert (await bench.counts()).acked == 1


async def test_a_lease_named_twice_in_one_call_is_settled_once(bench: Bench) -> None:
    await bench.enq("a")
    message = await bench.worker().get()
    assert await bench.ack(message, message) == []
    assert (await bench.counts()).acked == 1


async def test_each_delivery_has_a_lease_of_its_own(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    first = await worker.get()
    await bench.requeue(first)
    second = await worker.get()
    assert first.lease_id != second.lease_id


@pytest.mark.parametrize("outcome", ENDINGS)
async def test_the_lease_of_an_earlier_delivery_cannot_settle_a_later_one(bench: Bench, outcome: Outcome) -> None:
    await bench.enq("a")
    worker = bench.worker()
    old = await worker.get()
    await bench.requeue(old)
    new = await worker.get()
    assert await bench.settle(old, outcome=outcome) == [old.lease_id]
    assert await bench.extend(old, seconds=1.0) == [old.lease_id]
    bench.pass_time(2.0)
    assert (await bench.counts()).leased == 1
    assert await bench.ack(new) == []


@pytest.mark.parametrize("outcome", ENDINGS)
async def test_the_lease_of_a_closed_consumer_is_stale(bench: Bench, outcome: Outcome) -> None:
    await bench.enq("a")
    worker = bench.worker()
    message = await worker.get()
    worker.close()
    assert await bench.settle(message, outcome=outcome) == [message.lease_id]
    assert await bench.peek_bodies() == ["a"]


async def test_only_the_stale_ones_of_several_leases_are_returned_and_the_others_settled(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(prefetch=2)
    a, b = await worker.next()
    await bench.ack(a)
    settlement = Settlement([a.lease_id, "never seen", b.lease_id])
    assert await ready(bench.engine.settle(settlement)) == [a.lease_id, "never seen"]
    assert (await bench.counts()).acked == 2


async def test_closing_twice_gives_back_once(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    await worker.next()
    worker.close()
    worker.close()
    assert await bench.peek_bodies() == ["a"]
    assert (await bench.counts()).requeued == 1
    assert worker.ended()


async def test_a_consumer_that_vanishes_before_it_takes_what_it_was_handed_loses_nothing(bench: Bench) -> None:
    worker = bench.worker(prefetch=2)
    assert worker.nothing()
    await bench.enq("a", "b")
    worker.close()
    assert await bench.take_all() == ["a", "b"]


async def test_the_attempt_is_counted_when_a_message_is_leased(bench: Bench) -> None:
    await bench.enq("a")
    (before,) = await bench.peek()
    assert before.entry.attempt == 0
    for attempt in 1, 2, 3:
        worker = bench.worker()
        message = await worker.get()
        assert message.attempt == attempt
        (held,) = await bench.peek(state=State.LEASED)
        assert held.entry.attempt == attempt
        worker.close()
        (back,) = await bench.peek()
        assert back.entry.attempt == attempt


async def test_a_message_requeued_with_a_delay_comes_back_to_its_old_place_then(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker()
    await bench.requeue(await worker.get(), delay=30.0)
    assert (await worker.get()).body == b"b"
    bench.pass_time(29.9)
    assert await bench.peek_bodies() == ["c"]
    bench.pass_time(0.2)
    assert await bench.peek_bodies() == ["a", "c"]
    worker.close()
    assert await bench.peek_bodies() == ["a", "b", "c"]
    assert (await bench.worker().get()).attempt == 2


async def test_without_a_limit_a_message_is_delivered_again_and_again(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    for attempt in range(1, 101):
        message = await worker.get()
        assert message.attempt == attempt
        await bench.requeue(message)


async def test_a_message_moves_to_the_dead_letter_queue_instead_of_one_delivery_too_many(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=2)
    await bench.enq("a", "b", priority=3, headers={"k": "v"})
    for attempt in 1, 2:
        worker = bench.worker()
        message = await worker.get()
        assert (message.body, message.attempt) == (b"a", attempt)
        worker.close()
    assert (await bench.worker().get()).body == b"b"
    bench.settle_down()
    (dead,) = await bench.peek("q.dead")
    assert dead.entry.body == b"a"
    assert dead.entry.properties.priority == 3
    assert dict(dead.entry.properties.headers) == {
        "k": "v",
        "stiqueue-dead-queue": "q",
        "stiqueue-dead-reason": "max-attempts",
        "stiqueue-dead-attempts": "2",
    }
    counts = await bench.counts()
    assert (counts.dead_lettered, counts.ready, counts.leased) == (1, 0, 1)
    assert (await bench.counts("q.dead")).ready == 1


@pytest.mark.parametrize("way", ["requeue", "requeue later", "expiry"])
async def test_every_way_of_giving_back_counts_against_the_most_attempts(make_bench: MakeBench, way: str) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a")
    message = await bench.worker(ack_timeout=5.0).get()
    if way == "expiry":
        bench.pass_time(5.0)
    else:
        await bench.requeue(message, delay=5.0 if way == "requeue later" else 0.0)
    bench.pass_time(5.0)
    assert await bench.peek_bodies(state=State.ALL) == []
    assert await bench.peek_bodies("q.dead") == ["a"]


async def test_an_ack_at_the_last_attempt_counts(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a")
    worker = bench.worker()
    assert await bench.ack(await worker.get()) == []
    worker.close()
    assert await bench.peek_bodies("q.dead", State.ALL) == []


async def test_a_dead_letter_queue_has_no_limit_of_attempts(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a", queue="q.dead")
    for attempt in 1, 2, 3:
        worker = bench.worker("q.dead")
        assert (await worker.get()).attempt == attempt
        worker.close()


async def test_a_dead_letter_says_where_it_came_from_why_and_after_how_many_attempts(bench: Bench) -> None:
    await bench.enq("a", headers={"k": "v"})
    enqueued_at = int(bench.clock.wall() * 1000)
    worker = bench.worker()
    await bench.requeue(await worker.get())
    bench.pass_time(10.0)
    assert await bench.dead_letter(await worker.get(), reason="cannot parse it") == []
    message = await bench.worker("q.dead").get()
    assert (message.body, message.attempt, message.enqueue_time_ms) == (b"a", 1, enqueued_at)
    assert dict(message.headers) == {
        "k": "v",
        "stiqueue-dead-queue": "q",
        "stiqueue-dead-reason": "cannot parse it",
        "stiqueue-dead-attempts": "2",
    }


async def test_a_dead_letter_without_a_reason_was_rejected(bench: Bench) -> None:
    await bench.enq("a")
    await bench.dead_letter(await bench.worker().get())
    (dead,) = await bench.peek("q.dead")
    assert dead.entry.properties.headers["stiqueue-dead-reason"] == "rejected"


async def test_a_dead_letter_goes_to_a_consumer_that_waits_for_it(bench: Bench) -> None:
    undertaker = bench.worker("q.dead")
    assert undertaker.nothing()
    await bench.enq("a")
    await bench.dead_letter(await bench.worker().get())
    assert (await undertaker.get()).body == b"a"


async def test_a_dead_letter_of_a_dead_letter_queue_stays_in_it(bench: Bench) -> None:
    await bench.enq("a")
    await bench.dead_letter(await bench.worker().get(), reason="first")
    undertaker = bench.worker("q.dead")
    await bench.dead_letter(await undertaker.get(), reason="second")
    again = await undertaker.get()
    assert again.body == b"a"
    assert again.headers["stiqueue-dead-reason"] == "second"
    assert "q.dead.dead" not in await bench.queues()


async def test_a_dead_letter_of_a_dead_letter_queue_still_knows_its_origin(bench: Bench) -> None:
    await bench.enq("a")
    await bench.dead_letter(await bench.worker().get())
    undertaker = bench.worker("q.dead")
    await bench.dead_letter(await undertaker.get())
    undertaker.close()
    (dead,) = await bench.peek("q.dead")
    assert dead.entry.properties.headers["stiqueue-dead-queue"] == "q"


async def test_dead_letters_of_a_queue_with_the_longest_name_are_kept(bench: Bench) -> None:
    name = "n" * 128
    await bench.enq("a", queue=name)
    await bench.dead_letter(await bench.worker(name).get())
    (dead,) = [queue for queue in await bench.queues() if queue.endswith(".dead")]
    assert len(dead) <= 128
    (peeked,) = await bench.peek(dead)
    assert peeked.entry.properties.headers["stiqueue-dead-queue"] == name


async def test_several_dead_letters_keep_their_order(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    a, b, c = await bench.worker(prefetch=3).next()
    await bench.dead_letter(a, b, c)
    assert await bench.take_all("q.dead") == ["a", "b", "c"]


# -- an ack that takes the next message -------------------------------------------------------------------------------


async def test_an_exchange_acks_a_message_and_leases_the_next(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker()
    message = await bench.exchange(worker, await worker.get())
    assert (message.body, message.attempt) == (b"b", 1)
    counts = await bench.counts()
    assert (counts.acked, counts.leased, counts.ready) == (1, 1, 1)
    assert worker.nothing()
    worker.close()
    assert await bench.peek_bodies() == ["b", "c"]


async def test_after_an_exchange_for_nothing_the_next_message_comes_as_it_always_does(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    assert await bench.exchange_now(worker, await worker.get()) is None
    assert worker.nothing()
    await bench.enq("b")
    assert (await worker.get()).body == b"b"


async def test_an_exchange_of_a_stale_lease_takes_nothing(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    message = await worker.get()
    await bench.requeue(message)
    assert await ready(bench.engine.exchange(message.lease_id)) is None
    assert await ready(bench.engine.exchange("never seen")) is None
    counts = await bench.counts()
    assert (counts.acked, counts.requeued) == (0, 1)


async def test_an_exchange_frees_the_credit_of_one_message(bench: Bench) -> None:
    await bench.enq("a", "b", "c", "d")
    worker = bench.worker(prefetch=2)
    a, b = await worker.next()
    c = await bench.exchange(worker, a)
    assert c.body == b"c"
    assert worker.nothing()
    assert await bench.ack(b, c) == []
    assert await worker.bodies() == ["d"]


async def test_an_exchange_gives_nothing_to_a_finished_consumer_and_to_one_that_has_all_it_asked_for(
    bench: Bench,
) -> None:
    await bench.enq("a", "b", "c")
    finished, served = bench.worker(), bench.worker(max_messages=1)
    a, b = await finished.get(), await served.get()
    finished.consumer.finish()
    assert await ready(bench.engine.exchange(a.lease_id)) == []
    assert await ready(bench.engine.exchange(b.lease_id)) == []
    assert finished.ended()
    assert served.ended()
    assert await bench.peek_bodies() == ["c"]


async def test_what_an_exchange_gave_is_leased_for_the_time_limit_of_its_consumer(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(ack_timeout=5.0)
    message = await bench.exchange(worker, await worker.get())
    bench.pass_time(6.0)
    assert await ready(bench.engine.exchange(message.lease_id)) is None
    again = await worker.get()
    assert (again.body, again.attempt) == (b"b", 2)
