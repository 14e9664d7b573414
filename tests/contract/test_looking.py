"""Looking inside without taking: counts and peek."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from stiqueue.message import Counts, PeekQuery, State
from stiqueue.rules.entry import Peeked

from .bench import Bench


async def test_an_unknown_queue_counts_zero_and_stays_unknown(bench: Bench) -> None:
    assert await bench.counts("unknown") == Counts("unknown")
    assert await bench.peek("unknown") == []
    assert await bench.queues() == []


async def test_queues_are_counted_in_the_order_asked_or_sorted_when_none_is_named(bench: Bench) -> None:
    for name in "b", "C", "a":
        await bench.enq("x", queue=name)
    assert [each.queue for each in await bench.engine.counts(["b", "unknown", "a"])] == ["b", "unknown", "a"]
    assert await bench.queues() == ["C", "a", "b"]


async def test_a_queue_vanishes_from_the_listing_when_it_is_empty_and_unused(bench: Bench) -> None:
    await bench.enq("a")
    assert await bench.queues() == ["q"]
    worker = bench.worker()
    await bench.ack(await worker.get())
    assert await bench.queues() == ["q"], "it has a consumer"
    worker.close()
    assert await bench.queues() == []


async def test_a_queue_with_only_leased_or_delayed_messages_is_listed(bench: Bench) -> None:
    await bench.enq("a", queue="delayed", delay=60.0)
    await bench.enq("a", queue="leased")
    await bench.worker("leased").next()
    assert await bench.queues() == ["delayed", "leased"]


async def test_counts_tell_where_the_messages_are(bench: Bench) -> None:
    await bench.enq("ready 1", "leased", "ready 2", priority=0)
    await bench.enq("later", delay=60.0, headers={"k": "ä"})
    first, second = bench.worker(), bench.worker()
    ready_1, leased = await first.get(), await second.get()
    await bench.requeue(ready_1)
    first.close()
    counts = await bench.counts()
    assert (counts.ready, counts.leased, counts.delayed, counts.consumers) == (2, 1, 1, 1)
    assert counts.bytes == len("ready 1leasedready 2later") + 3
    assert leased.body == b"leased"


async def test_ages_are_those_of_the_oldest(bench: Bench) -> None:
    await bench.enq("a", "b")
    bench.pass_time(1.5)
    await bench.enq("c", "d")
    workers = bench.worker(), bench.worker()
    first = await workers[0].get()
    bench.pass_time(2.0)
    await workers[1].next()
    bench.pass_time(3.0)
    counts = await bench.counts()
    assert (counts.oldest_ready_age_ms, counts.oldest_lease_age_ms) == (5000, 5000)
    await bench.ack(first, close_stream=True)
    assert (await bench.counts()).oldest_lease_age_ms == 3000
    workers[1].close()
    counts = await bench.counts()
    assert (counts.oldest_ready_age_ms, counts.oldest_lease_age_ms) == (6500, 0)


async def test_the_oldest_of_all_priorities_counts(bench: Bench) -> None:
    await bench.enq("old")
    bench.pass_time(2.0)
    await bench.enq("new", priority=9)
    assert (await bench.counts()).oldest_ready_age_ms == 2000


async def test_nothing_ready_and_nothing_leased_has_no_age(bench: Bench) -> None:
    await bench.enq("a", delay=60.0)
    bench.pass_time(10.0)
    counts = await bench.counts()
    assert (counts.oldest_ready_age_ms, counts.oldest_lease_age_ms) == (0, 0)


async def test_extending_does_not_make_a_lease_younger(bench: Bench) -> None:
    await bench.enq("a")
    message = await bench.worker().get()
    bench.pass_time(10.0)
    await bench.extend(message, seconds=60.0)
    assert (await bench.counts()).oldest_lease_age_ms == 10_000


async def test_totals_count_everything_that_happened(bench: Bench) -> None:
    await bench.enq("acked", "requeued", "closed", "timed out", "dead")
    worker = bench.worker(prefetch=5, max_messages=5, ack_timeout=60.0)
    acked, requeued, closed, timed_out, dead = await worker.next()
    await bench.enq("no_ack", "waits", priority=1)
    await bench.enq("mortal", ttl=1.0, priority=0)
    await bench.ack(acked)
    await bench.requeue(requeued)
    await bench.dead_letter(dead)
    await bench.extend(timed_out, seconds=1.0)
    bench.pass_time(1.0)
    worker.close()
    await bench.worker(no_ack=True, max_messages=1).next()
    assert asdict(await bench.counts()) | {"oldest_ready_age_ms": 0} == asdict(
        Counts(
            "q",
            ready=4,
            consumers=1,
            bytes=len("requeuedclosedtimed outwaits"),
            enqueued=8,
            acked=2,
            requeued=3,
            expired=1,
            dead_lettered=1,
        )
    )
    assert (await bench.counts("q.dead")).enqueued == 1
    assert closed.body == b"closed"


async def test_a_repeated_request_is_not_counted_again(bench: Bench) -> None:
    await bench.enq("a", request_id="r")
    await bench.enq("a", request_id="r")
    assert (await bench.counts()).enqueued == 1


async def test_peek_shows_ready_messages_in_the_order_of_delivery(bench: Bench) -> None:
    await bench.enq("c", "d")
    await bench.enq("a", "b", priority=5)
    assert await bench.peek_bodies() == ["a", "b", "c", "d"]
    assert await bench.take_all() == ["a", "b", "c", "d"]


async def test_peek_takes_nothing_and_counts_no_attempt(bench: Bench) -> None:
    await bench.enq("a")
    await bench.peek()
    await bench.peek()
    assert (await bench.worker().get()).attempt == 1


async def prepare_all_states(bench: Bench) -> None:
    """Make, half a minute apart each: delayed, leased and ready messages."""
    await bench.enq("delayed late", delay=600.0)
    await bench.enq("leased 1", "leased 2")
    await bench.enq("delayed soon", delay=300.0)
    bench.pass_time(30.0)
    await bench.worker(consumer="worker 1", ack_timeout=100.0).next()
    bench.pass_time(30.0)
    await bench.worker(consumer="worker 2").next()
    await bench.enq("ready 1", "ready 2")
    bench.pass_time(30.0)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (State.READY, ["ready 1", "ready 2"]),
        (State.LEASED, ["leased 1", "leased 2"]),
        (State.DELAYED, ["delayed soon", "delayed late"]),
        (State.ALL, ["leased 1", "leased 2", "ready 1", "ready 2", "delayed soon", "delayed late"]),
    ],
)
async def test_peek_shows_the_state_asked_for(bench: Bench, state: State, expected: list[str]) -> None:
    await prepare_all_states(bench)
    assert await bench.peek_bodies(state=state) == expected


async def test_peek_tells_who_holds_a_message_since_when_and_until_when(bench: Bench) -> None:
    await prepare_all_states(bench)
    now_ms = int(bench.clock.wall() * 1000)
    seen = {
        peeked.entry.body.decode(): (peeked.state, peeked.consumer, peeked.state_age_ms, peeked.ready_time_ms)
        for peeked in await bench.peek(state=State.ALL)
    }
    assert seen == {
        "leased 1": (State.LEASED, "worker 1", 60_000, now_ms + 40_000),
        "leased 2": (State.LEASED, "worker 2", 30_000, 0),
        "ready 1": (State.READY, "", 30_000, 0),
        "ready 2": (State.READY, "", 30_000, 0),
        "delayed soon": (State.DELAYED, "", 90_000, now_ms + 210_000),
        "delayed late": (State.DELAYED, "", 90_000, now_ms + 510_000),
    }


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 6, 7, 100])
async def test_peek_shows_at_most_as_many_as_asked(bench: Bench, limit: int) -> None:
    await prepare_all_states(bench)
    everything = await bench.peek_bodies(state=State.ALL)
    found = [peeked.entry.body.decode() for peeked in await bench.peek(state=State.ALL, limit=limit)]
    assert found == everything[:limit]


@pytest.mark.parametrize("number", [1, 999, 1000, 1001, 2500])
async def test_peek_shows_all_of_many(bench: Bench, number: int) -> None:
    await bench.enq(*map(str, range(number)))
    assert await bench.peek_bodies() == [str(each) for each in range(number)]
    assert len(await bench.peek(limit=number - 1)) == (number - 1 or number)


@pytest.mark.parametrize("page", [1, 7, 1000, 1500])
async def test_peek_pages_by_id(bench: Bench, page: int) -> None:
    number = 30 if page < 10 else 3200
    await bench.enq(*map(str, range(number)))
    found: list[int] = []
    while chunk := await bench.peek(limit=page, after_id=found[-1] if found else 0):
        assert len(chunk) <= page
        found += [peeked.entry.id for peeked in chunk]
    assert found == list(range(1, number + 1))


async def test_peek_pages_over_given_back_messages_too(bench: Bench) -> None:
    await bench.enq(*"abcdef")
    worker = bench.worker(prefetch=3)
    await worker.next()
    worker.close()
    assert [peeked.entry.body for peeked in await bench.peek(after_id=1, limit=3)] == [b"b", b"c", b"d"]
    assert [peeked.entry.body for peeked in await bench.peek(after_id=4)] == [b"e", b"f"]
    assert await bench.peek(after_id=6) == []


async def test_peek_of_leased_and_delayed_messages_pages_too(bench: Bench) -> None:
    await prepare_all_states(bench)
    assert [peeked.entry.id for peeked in await bench.peek(state=State.ALL, after_id=3)] == [5, 6, 4]


@pytest.mark.parametrize("page", [1, 3, 7])
async def test_peek_pages_through_priorities(bench: Bench, page: int) -> None:
    for number in range(30):
        await bench.enq(str(number), priority=(0, 255, 7)[number % 3])
    expected = [peeked.entry.id for peeked in await bench.peek()]
    assert expected == [*range(2, 31, 3), *range(3, 31, 3), *range(1, 31, 3)]
    found: list[Peeked] = []
    place: dict[str, int] = {}
    while chunk := await bench.peek(limit=page, **place):
        found += chunk
        place = {"after_id": chunk[-1].entry.id, "after_priority": chunk[-1].entry.properties.priority}
    assert [peeked.entry.id for peeked in found] == expected


async def test_a_place_in_the_order_holds_for_every_state(bench: Bench) -> None:
    await bench.enq("high", "leased high", priority=5)
    await bench.enq("low", priority=0)
    await bench.enq("later", "later still", delay=60.0, priority=5)
    await bench.enq("later low", delay=90.0, priority=0)
    await bench.worker().next()
    for state in State:
        everything = await bench.peek(state=state)
        for after_id in (0, 2, 4, 100):
            for priority in (0, 4, 5, 255):
                seen = await bench.peek(state=state, after_id=after_id, after_priority=priority)
                assert [each.entry.id for each in seen] == [
                    each.entry.id
                    for each in everything
                    if each.entry.properties.priority < priority
                    or (each.entry.properties.priority == priority and each.entry.id > after_id)
                ]


async def test_a_place_at_the_lowest_priority_is_an_id(bench: Bench) -> None:
    await bench.enq(*"abc")
    assert [peeked.entry.id for peeked in await bench.peek(after_id=1, after_priority=0)] == [2, 3]
    assert [peeked.entry.id for peeked in await bench.peek(after_id=3, after_priority=1)] == [1, 2, 3]


@pytest.mark.parametrize("limit", [0, 1, 10, 1_500, 5_000])
async def test_peek_shows_delayed_messages_in_the_order_of_their_times(bench: Bench, limit: int) -> None:
    seconds = [float((number * 37) % 101 + 1_000) for number in range(25)]
    for delay in seconds:
        await bench.enq(*["x"] * 100, delay=delay)
    expected = [
        number * 100 + each for _, number in sorted(zip(seconds, range(25), strict=True)) for each in range(1, 101)
    ]
    found = [peeked.entry.id for peeked in await bench.peek(state=State.DELAYED, limit=limit)]
    assert found == (expected[:limit] if limit else expected)


async def test_peek_shows_a_rescheduled_message_once(bench: Bench) -> None:
    await bench.enq("a", delay=60.0)
    await bench.enq("b", delay=30.0)
    for delay in (10.0, 45.0, 45.0):
        worker = bench.worker(ids=[1])
        await bench.requeue(await worker.get(), delay=delay)
        worker.close()
    untouched = bench.worker(ids=[1])
    await untouched.get()
    untouched.close()  # delayed as before
    for limit in (0, 1, 2, 3):
        found = [peeked.entry.id for peeked in await bench.peek(state=State.DELAYED, limit=limit)]
        assert found == ([2, 1][:limit] if limit else [2, 1])
    assert [peeked.entry.id for peeked in await bench.peek(state=State.DELAYED, after_id=1)] == [2]


async def test_a_delayed_message_is_missed_by_no_peek(bench: Bench) -> None:
    """It becomes ready at a place that was looked at already."""
    await bench.enq("later", delay=60.0)
    await bench.enq(*map(str, range(2500)))
    seen: list[tuple[int, State]] = []
    async for chunk in bench.engine.peek(PeekQuery("q", state=State.ALL)):
        seen += [(peeked.entry.id, peeked.state) for peeked in chunk]
        bench.pass_time(61.0)
    assert sorted(number for number, _ in seen) == list(range(1, 2502))


async def test_a_message_that_moves_while_peek_runs_harms_nothing(bench: Bench) -> None:
    await bench.enq(*map(str, range(2500)))
    seen: list[int] = []
    async for chunk in bench.engine.peek(PeekQuery("q")):
        seen += [peeked.entry.id for peeked in chunk]
        await bench.take_all()
    assert seen[:1000] == list(range(1, 1001))
    assert seen == sorted(set(seen))


async def test_a_message_that_becomes_ready_while_peek_runs_is_shown_once(bench: Bench) -> None:
    for start in range(0, 2500, 500):
        await bench.enq(*map(str, range(start, start + 500)))
    worker = bench.worker(prefetch=3)
    await worker.next()
    await bench.enq("later", delay=60.0)
    seen: list[str] = []
    async for chunk in bench.engine.peek(PeekQuery("q", state=State.ALL)):
        seen += [peeked.entry.body.decode() for peeked in chunk]
        worker.close()
        bench.pass_time(61.0)
    assert sorted(seen) == sorted([*map(str, range(2500)), "later"])
