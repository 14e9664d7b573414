"""What time does: delay, ttl, the time limit of a lease, and clocks that jump."""

from __future__ import annotations

import pytest

from stiqueue.message import State

from .bench import Bench

DAY = 86_400.0


async def test_a_delayed_message_is_not_delivered_before_its_time(bench: Bench) -> None:
    worker = bench.worker()
    await bench.enq("a", delay=30.0)
    bench.pass_time(29.9)
    assert worker.nothing()
    bench.pass_time(0.2)
    assert (await worker.get()).body == b"a"


async def test_a_waiting_consumer_is_woken_when_a_delay_is_over(bench: Bench) -> None:
    worker = bench.worker()
    await bench.enq("a", delay=30.0)
    assert worker.nothing()
    bench.pass_time(30.0)
    assert worker.wakes == 1
    assert (await worker.get()).body == b"a"


async def test_a_delayed_message_holds_up_nobody(bench: Bench) -> None:
    await bench.enq("late", delay=30.0)
    await bench.enq("now")
    assert await bench.take_all() == ["now"]


async def test_a_delayed_message_comes_at_the_place_of_its_id(bench: Bench) -> None:
    await bench.enq("first", delay=30.0)
    await bench.enq("second")
    await bench.enq("third", delay=10.0)
    bench.pass_time(30.0)
    assert await bench.take_all() == ["first", "second", "third"]


async def test_a_delayed_message_keeps_its_priority(bench: Bench) -> None:
    await bench.enq("low")
    await bench.enq("high", delay=10.0, priority=1)
    bench.pass_time(10.0)
    assert await bench.take_all() == ["high", "low"]


async def test_many_delays_end_each_at_its_own_time(bench: Bench) -> None:
    for seconds in 30, 10, 20:
        await bench.enq(str(seconds), delay=float(seconds))
    for seconds in 10, 20, 30:
        bench.pass_time(10.0)
        assert await bench.take_all() == [str(seconds)]


async def test_a_message_is_dropped_when_its_ttl_is_over(bench: Bench) -> None:
    await bench.enq("mortal", ttl=30.0)
    await bench.enq("immortal")
    bench.pass_time(29.9)
    assert await bench.peek_bodies() == ["mortal", "immortal"]
    bench.pass_time(0.2)
    assert await bench.peek_bodies() == ["immortal"]
    counts = await bench.counts()
    assert (counts.ready, counts.expired, counts.bytes) == (1, 1, len("immortal"))
    assert await bench.take_all() == ["immortal"]


async def test_an_expired_message_is_not_delivered_even_before_anybody_noticed(bench: Bench) -> None:
    await bench.enq("mortal", ttl=30.0)
    await bench.enq("immortal")
    bench.clock.advance(30.0)
    assert await bench.take_all() == ["immortal"]
    bench.engine.tick()
    counts = await bench.counts()
    assert (counts.ready, counts.expired, counts.bytes) == (0, 1, 0)


async def test_a_message_expires_in_the_middle_of_others(bench: Bench) -> None:
    await bench.enq("a")
    await bench.enq("b", ttl=10.0)
    await bench.enq("c")
    await bench.enq("d", ttl=5.0)
    bench.pass_time(10.0)
    assert await bench.peek_bodies() == ["a", "c"]
    assert (await bench.counts()).ready == 2
    assert await bench.take_all() == ["a", "c"]
    assert (await bench.counts()).expired == 2


async def test_a_delayed_message_is_dropped_when_its_ttl_is_over(bench: Bench) -> None:
    await bench.enq("a", delay=60.0, ttl=30.0)
    bench.pass_time(30.0)
    assert await bench.peek_bodies(state=State.ALL) == []
    bench.pass_time(60.0)
    assert await bench.take_all() == []
    counts = await bench.counts()
    assert (counts.delayed, counts.expired) == (0, 1)


async def test_a_leased_message_outlives_its_ttl_and_can_be_acked(bench: Bench) -> None:
    await bench.enq("a", ttl=30.0)
    message = await bench.worker().get()
    bench.pass_time(60.0)
    assert (await bench.counts()).leased == 1
    assert await bench.ack(message) == []
    counts = await bench.counts()
    assert (counts.acked, counts.expired) == (1, 0)


@pytest.mark.parametrize("way", ["requeue", "close", "expiry"])
async def test_a_message_that_is_given_back_after_its_ttl_is_dropped(bench: Bench, way: str) -> None:
    await bench.enq("a", ttl=30.0)
    worker = bench.worker(ack_timeout=60.0)
    message = await worker.get()
    bench.pass_time(30.0)
    if way == "requeue":
        await bench.requeue(message)
    elif way == "close":
        worker.close()
    else:
        bench.pass_time(30.0)
    assert await bench.peek_bodies(state=State.ALL) == []
    assert (await bench.counts()).expired == 1


async def test_a_message_that_is_given_back_before_its_ttl_expires_later(bench: Bench) -> None:
    await bench.enq("a", ttl=30.0)
    worker = bench.worker()
    await worker.next()
    worker.close()
    bench.pass_time(29.0)
    assert await bench.peek_bodies() == ["a"]
    bench.pass_time(1.0)
    assert await bench.peek_bodies() == []


async def test_a_message_requeued_beyond_its_ttl_expires_meanwhile(bench: Bench) -> None:
    await bench.enq("a", ttl=30.0)
    await bench.requeue(await bench.worker().get(), delay=60.0)
    bench.pass_time(30.0)
    assert await bench.peek_bodies(state=State.ALL) == []
    assert (await bench.counts()).expired == 1


async def test_a_dead_letter_outlives_the_ttl_of_its_message(bench: Bench) -> None:
    await bench.enq("a", ttl=30.0)
    await bench.dead_letter(await bench.worker().get())
    bench.pass_time(60.0)
    assert await bench.peek_bodies("q.dead") == ["a"]


async def test_without_a_time_limit_a_lease_lasts(bench: Bench) -> None:
    await bench.enq("a")
    message = await bench.worker().get()
    bench.pass_time(7 * DAY)
    assert await bench.ack(message) == []


async def test_a_lease_that_runs_out_gives_the_message_back_to_its_old_place(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(ack_timeout=30.0, prefetch=2, max_messages=2)
    late, early = await worker.next()
    bench.pass_time(29.9)
    assert await bench.ack(early) == []
    bench.pass_time(0.2)
    assert await bench.peek_bodies() == ["a"]
    assert await bench.ack(late) == [late.lease_id]
    message = await bench.worker().get()
    assert (message.body, message.attempt) == (b"a", 2)
    assert (await bench.counts()).requeued == 1


async def test_a_lease_that_runs_out_frees_its_consumer_once_that_settles_it(bench: Bench) -> None:
    await bench.enq("a", priority=1)
    worker = bench.worker(ack_timeout=30.0)
    first = await worker.get()
    assert worker.nothing()
    bench.pass_time(30.0)
    assert worker.nothing()
    assert await bench.ack(first) == [first.lease_id]
    second = await worker.get()
    assert (second.body, second.attempt) == (b"a", 2)
    assert second.lease_id != first.lease_id


async def test_a_message_whose_lease_ran_out_goes_to_a_waiting_consumer(bench: Bench) -> None:
    await bench.enq("a")
    slow, other = bench.worker(ack_timeout=30.0), bench.worker()
    await slow.next()
    assert other.nothing()
    bench.pass_time(30.0)
    assert (await other.get()).body == b"a"


async def test_extending_holds_a_lease_from_now(bench: Bench) -> None:
    await bench.enq("a")
    message = await bench.worker(ack_timeout=30.0).get()
    bench.pass_time(20.0)
    assert await bench.extend(message, seconds=30.0) == []
    bench.pass_time(29.9)
    assert (await bench.counts()).leased == 1
    bench.pass_time(0.2)
    assert await bench.ack(message) == [message.lease_id]


async def test_extending_can_shorten_a_lease(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(ack_timeout=30.0, max_messages=1)
    message = await worker.get()
    await bench.extend(message, seconds=1.0)
    bench.pass_time(1.0)
    assert await bench.extend(message, seconds=30.0) == [message.lease_id]
    assert await bench.peek_bodies() == ["a"]


async def test_extending_again_and_again_holds_a_lease_for_long(bench: Bench) -> None:
    await bench.enq("a")
    message = await bench.worker(ack_timeout=30.0).get()
    for _ in range(100):
        bench.pass_time(29.0)
        assert await bench.extend(message, seconds=30.0) == []
    assert await bench.ack(message) == []


async def test_extending_gives_a_lease_without_a_time_limit_one(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(max_messages=1)
    await bench.extend(await worker.get(), seconds=30.0)
    bench.pass_time(30.0)
    assert await bench.peek_bodies() == ["a"]


async def test_an_ended_lease_leaves_no_time_limit_behind(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(ack_timeout=30.0)
    await bench.requeue(await worker.get())
    bench.pass_time(20.0)
    worker.close()
    message = await bench.worker(ack_timeout=30.0).get()
    bench.pass_time(29.0)
    assert await bench.ack(message) == []


@pytest.mark.parametrize("jump", [-365 * DAY, -1.0, 1.0, 365 * DAY])
async def test_setting_the_wall_clock_changes_no_decision(bench: Bench, jump: float) -> None:
    await bench.enq("delayed", queue="delayed", delay=60.0)
    await bench.enq("mortal", queue="mortal", ttl=60.0)
    await bench.enq("leased", queue="leased")
    message = await bench.worker("leased", ack_timeout=60.0).get()
    idle = bench.worker("idle", wait=60.0)
    assert idle.nothing()
    await bench.enq("x", queue="twice", request_id="r")
    bench.clock.jump(jump)
    bench.pass_time(59.0)
    assert await bench.peek_bodies("delayed") == []
    assert await bench.peek_bodies("mortal") == ["mortal"]
    assert (await bench.counts("leased")).leased == 1
    assert idle.nothing()
    assert (await bench.enq("x", queue="twice", request_id="r")).duplicate
    bench.pass_time(1.0)
    assert await bench.peek_bodies("delayed") == ["delayed"]
    assert await bench.peek_bodies("mortal") == []
    assert await bench.ack(message) == [message.lease_id]
    assert idle.ended()


@pytest.mark.parametrize("jump", [-365 * DAY, 365 * DAY])
async def test_setting_the_wall_clock_keeps_the_order(bench: Bench, jump: float) -> None:
    await bench.enq("before")
    bench.clock.jump(jump)
    await bench.enq("after")
    assert await bench.take_all() == ["before", "after"]


async def test_no_age_is_negative_after_the_wall_clock_was_set_back(bench: Bench) -> None:
    await bench.enq("a", "b")
    await bench.enq("c", delay=10.0)
    await bench.worker().next()
    bench.clock.jump(-DAY)
    counts = await bench.counts()
    assert counts.oldest_ready_age_ms >= 0
    assert counts.oldest_lease_age_ms >= 0
    assert all(peeked.state_age_ms >= 0 for peeked in await bench.peek(state=State.ALL))
