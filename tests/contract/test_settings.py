"""Settings of queues: in force at once, for those who wait as well."""

from __future__ import annotations

from typing import Any

import pytest

from stiqueue.engines.bounds import Bounds
from stiqueue.errors import QueueFull
from stiqueue.message import State
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules.engine import ready

from .bench import Bench
from .conftest import MakeBench


async def configure(bench: Bench, queue: str = "q", reset: list[str] | None = None, **settings: Any) -> QueueSettings:
    return await ready(bench.engine.configure(QueueSettings(queue, **settings), reset or []))


async def test_a_paused_queue_takes_messages_and_settlements_and_delivers_nothing(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(prefetch=1)
    a = await worker.get()
    await configure(bench, paused=True)
    await bench.enq("c")
    assert await bench.ack(a) == []
    assert worker.nothing()
    counts = await bench.counts()
    assert (counts.ready, counts.leased, counts.paused, counts.paused_ms) == (2, 0, True, 0)
    assert await bench.peek_bodies() == ["b", "c"]
    assert await bench.take_all() == []
    await configure(bench, reset=["paused"])
    assert await worker.bodies() == ["b"]
    assert not (await bench.counts()).paused


async def test_a_pause_reaches_a_consumer_with_credit(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    await configure(bench, paused=True)
    await bench.enq("a")
    assert worker.nothing()
    await configure(bench, paused=False)
    assert await worker.bodies() == ["a"]


async def test_exchange_brings_nothing_of_a_paused_queue(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    a = await worker.get()
    await configure(bench, paused=True)
    assert await bench.exchange_now(worker, a) is None
    await configure(bench, reset=["*"])
    assert await worker.bodies() == ["b"]


async def test_a_pause_ends_by_itself(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    await configure(bench, paused=True, resume_after=10.0)
    assert worker.nothing()
    bench.pass_time(4.0)
    assert worker.nothing()
    counts = await bench.counts()
    assert (counts.paused, counts.paused_ms) == (True, 6000)
    bench.pass_time(6.0)
    assert await worker.bodies() == ["a"]
    assert not (await bench.counts()).paused
    assert bench.engine.settings("").settings == []


async def test_a_paused_queue_that_is_not_in_use_is_counted_as_paused(bench: Bench) -> None:
    await configure(bench, paused=True, resume_after=10.0)
    counts = await bench.counts()
    assert (counts.paused, counts.paused_ms) == (True, 10_000)


async def test_delays_and_ttls_go_on_in_a_paused_queue(bench: Bench) -> None:
    await configure(bench, paused=True)
    await bench.enq("a", ttl=5.0)
    await bench.enq("b", delay=5.0)
    bench.pass_time(5.0)
    counts = await bench.counts()
    assert (counts.ready, counts.delayed, counts.expired) == (1, 0, 1)
    await configure(bench, reset=["paused"])
    assert await bench.take_all() == ["b"]


async def test_only_so_many_are_leased_by_all_consumers_together(bench: Bench) -> None:
    await configure(bench, max_leased=2)
    await bench.enq(*"abcde")
    first, second = bench.worker(prefetch=3), bench.worker(prefetch=3)
    a, b = await first.next()
    assert second.nothing()
    assert (await bench.counts()).leased == 2
    await bench.ack(a)
    (c,) = await second.next()  # who has waited longest
    assert c.body == b"c"
    await bench.requeue(c, delay=60.0)
    d = await first.get()
    second.close()
    await bench.ack(b, d)
    assert await first.bodies() == ["e"]
    assert (await bench.counts()).leased == 1


async def test_a_consumer_that_leaves_makes_room_for_another(bench: Bench) -> None:
    await configure(bench, max_leased=1)
    await bench.enq("a", "b")
    first, second = bench.worker(), bench.worker()
    assert await first.bodies() == ["a"]
    assert second.nothing()
    first.close()
    assert await second.bodies() == ["a"]


async def test_a_lease_that_runs_out_makes_room_for_another(bench: Bench) -> None:
    await configure(bench, max_leased=1)
    await bench.enq("a", "b")
    first, second = bench.worker(ack_timeout=5.0), bench.worker()
    assert await first.bodies() == ["a"]
    assert second.nothing()
    bench.pass_time(5.0)
    assert await second.bodies() == ["a"]


async def test_a_higher_limit_reaches_those_who_wait(bench: Bench) -> None:
    await configure(bench, max_leased=1)
    await bench.enq("a", "b", "c")
    first, second = bench.worker(), bench.worker()
    assert await first.bodies() == ["a"]
    assert second.nothing()
    await configure(bench, max_leased=2)
    assert await second.bodies() == ["b"]
    third = bench.worker()
    assert third.nothing()
    await configure(bench, max_leased=0)
    assert await third.bodies() == ["c"]


async def test_a_consumer_that_takes_what_is_there_ends_when_no_more_may_be_leased(bench: Bench) -> None:
    await configure(bench, max_leased=1)
    await bench.enq("a", "b")
    first = bench.worker()
    await first.get()
    assert bench.worker(wait=0.0).ended()


async def test_a_dead_letter_comes_earlier_once_fewer_attempts_are_allowed(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    for _ in range(3):
        await bench.requeue(await worker.get())
    worker.close()
    await bench.enq("b")
    await configure(bench, max_attempts=4)
    assert await bench.peek_bodies() == ["a", "b"]
    await configure(bench, max_attempts=3)
    bench.settle_down()
    assert await bench.peek_bodies("q.dead") == ["a"]
    assert await bench.take_all() == ["b"]
    counts = await bench.counts()
    assert (counts.ready, counts.bytes, counts.dead_lettered) == (0, 0, 1)


async def test_delayed_messages_that_were_tried_too_often_are_dead_letters(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    await bench.requeue(await worker.get(), delay=60.0)
    await configure(bench, max_attempts=1)
    bench.settle_down()
    assert await bench.peek_bodies(state=State.ALL) == []
    assert await bench.peek_bodies("q.dead") == ["a"]


async def test_dead_letters_go_where_the_settings_say(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await configure(bench, "*", dead_letter_queue="all.dead")
    await bench.enq("a")
    worker = bench.worker()
    await bench.dead_letter(await worker.get())
    await bench.enq("b")
    await bench.requeue(await worker.get())
    bench.settle_down()
    assert await bench.peek_bodies("all.dead") == ["a", "b"]
    (letter, _) = await bench.peek("all.dead")
    assert letter.entry.properties.headers["stiqueue-dead-queue"] == "q"
    dead = bench.worker("all.dead")
    await bench.dead_letter(await dead.get())  # which stays
    bench.settle_down()
    assert sorted(await bench.peek_bodies("all.dead", State.ALL)) == ["a", "b"]


async def test_a_queue_has_bounds_of_its_own(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=2))
    await bench.enq("a", "b")
    with pytest.raises(QueueFull, match="max_messages is 2"):
        await bench.enq("c")
    await configure(bench, max_messages=3, max_bytes=4)
    await bench.enq("c")
    with pytest.raises(QueueFull, match="max_messages is 3"):
        await bench.enq("d")
    await configure(bench, max_messages=0)
    with pytest.raises(QueueFull, match="max_queue_bytes is 4"):
        await bench.enq("dd")
    await bench.enq("d", queue="other")
    await configure(bench, reset=["max_messages", "max_bytes"])
    with pytest.raises(QueueFull, match="max_messages is 2"):
        await bench.enq("d")
    assert await bench.peek_bodies() == ["a", "b", "c"]  # nothing is dropped for a lower bound


async def test_messages_without_a_ttl_get_that_of_their_queue(bench: Bench) -> None:
    await configure(bench, ttl=5.0)
    await bench.enq("a")
    await bench.enq("b", ttl=9.0)
    await bench.enq("c", queue="other")
    await configure(bench, ttl=0.0)
    await bench.enq("d")
    bench.pass_time(5.0)
    assert await bench.peek_bodies() == ["b", "d"]
    bench.pass_time(4.0)
    assert await bench.peek_bodies() == ["d"]
    assert await bench.peek_bodies("other") == ["c"]


async def test_leases_last_as_long_as_the_queue_says_unless_the_consumer_does(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    waits, own = bench.worker(prefetch=1), bench.worker(ack_timeout=60.0)
    a = await waits.get()
    assert await own.bodies() == ["b"]
    await configure(bench, ack_timeout=5.0)
    assert (waits.consumer.ack_timeout, own.consumer.ack_timeout) == (5.0, 60.0)
    await bench.ack(a)
    assert await waits.bodies() == ["c"]  # from now on
    bench.pass_time(5.0)
    assert await bench.peek_bodies() == ["c"]
    assert (await bench.counts()).leased == 1
    await configure(bench, ack_timeout=0.0)
    assert bench.worker().consumer.ack_timeout is None


async def test_a_pattern_holds_for_queues_that_are_there_and_that_come(bench: Bench) -> None:
    await bench.enq("a", queue="mail.old")
    await configure(bench, "mail.*", paused=True)
    await bench.enq("b", queue="mail.new")
    assert await bench.take_all("mail.old") == []
    assert await bench.take_all("mail.new") == []
    await configure(bench, "mail.new", paused=False)
    assert await bench.take_all("mail.new") == ["b"]
    assert await bench.take_all("mail.old") == []


async def test_what_a_file_fixes_is_in_force_at_once_and_until_it_says_otherwise(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker()
    bench.engine.fix([QueueSettings("q", paused=True)])
    assert worker.nothing()
    bench.engine.fix([])
    assert await worker.bodies() == ["a"]
