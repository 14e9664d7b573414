"""What enqueueing promises: once for each request id, together with acks, within bounds, with rising ids."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from stiqueue.engines.bounds import OVERHEAD_BYTES, Bounds
from stiqueue.errors import LeaseStale, LimitReached, QueueFull
from stiqueue.message import Delivered, Receipt, State

from .bench import Bench
from .conftest import MakeBench


def lease_ids(*messages: Delivered) -> list[str]:
    return [message.lease_id for message in messages]


# -- request ids ------------------------------------------------------------------------------------------------------


async def test_a_request_id_enqueues_once_and_returns_the_first_ids(bench: Bench) -> None:
    await bench.enq("before")
    first = await bench.enq("a", "b", request_id="r")
    await bench.enq("between")
    again = await bench.enq("a", "b", request_id="r")
    assert (first.first_id, first.count, first.duplicate) == (2, 2, False)
    assert (again.first_id, again.count, again.duplicate) == (2, 2, True)
    assert again.durability == first.durability
    assert await bench.take_all() == ["before", "a", "b", "between"]


async def test_a_request_id_is_remembered_after_its_messages_are_gone(bench: Bench) -> None:
    await bench.enq("a", request_id="r")
    assert await bench.take_all() == ["a"]
    assert (await bench.enq("a", request_id="r")).duplicate
    assert await bench.take_all() == []


@pytest.mark.parametrize("start", [0.0, 1.0, 150.0, 299.0, 300.0, 599.0])
async def test_a_request_id_is_remembered_for_5_minutes_whenever_it_came(bench: Bench, start: float) -> None:
    bench.pass_time(start)
    await bench.enq("a", request_id="r")
    for _ in range(10):
        bench.pass_time(29.99)
        await bench.enq("x", request_id="another", queue="other")
    assert (await bench.enq("a", request_id="r")).duplicate


async def test_request_ids_are_remembered_for_each_queue(bench: Bench) -> None:
    await bench.enq("a", queue="one", request_id="r")
    assert not (await bench.enq("a", queue="two", request_id="r")).duplicate


async def test_a_repeated_request_with_other_bodies_gets_the_first_ids(bench: Bench) -> None:
    first = await bench.enq("a", "b", request_id="r")
    again = await bench.enq("c", "d", "e", request_id="r")
    assert (again.first_id, again.count, again.duplicate) == (first.first_id, 2, True)
    assert await bench.take_all() == ["a", "b"]


async def test_many_requests_at_once_get_their_own_ids_and_repeated_ones_the_first(bench: Bench) -> None:
    early = await bench.enq("early", request_id="early")

    def enq(number: int) -> Awaitable[Receipt]:
        return bench.enq(*[f"m{number}"] * (1 + number % 3), request_id=f"r{number}")

    again, *receipts = await asyncio.gather(
        bench.enq("early", request_id="early"), *map(enq, range(60)), *map(enq, range(0, 60, 7))
    )
    assert (again.first_id, again.duplicate) == (early.first_id, True)
    where = {peeked.entry.id: peeked.entry.body.decode() for peeked in await bench.peek()}
    numbers = [*range(60), *range(0, 60, 7)]
    for number, receipt in zip(numbers, receipts, strict=True):
        ids = range(receipt.first_id, receipt.first_id + receipt.count)
        assert [where[each] for each in ids] == [f"m{number}"] * (1 + number % 3)
    assert sum(not receipt.duplicate for receipt in receipts) == 60
    assert len(where) == 1 + sum(1 + number % 3 for number in range(60))


async def test_request_ids_are_no_messages_in_counts(bench: Bench) -> None:
    assert (await bench.enq("a", request_id="r")).count == 1
    (counts,) = await bench.engine.counts(["q"])
    assert (counts.ready, counts.leased, counts.delayed) == (1, 0, 0)
    assert await bench.take_all() == ["a"]
    (counts,) = await bench.engine.counts(["q"])
    assert (counts.ready, counts.leased, counts.delayed, counts.bytes) == (0, 0, 0, 0)
    assert await bench.engine.counts([]) == []


async def test_without_a_request_id_everything_is_enqueued(bench: Bench) -> None:
    await bench.enq("a")
    await bench.enq("a")
    assert await bench.take_all() == ["a", "a"]


async def test_a_request_that_was_refused_is_not_remembered(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=1))
    await bench.enq("a")
    with pytest.raises(QueueFull):
        await bench.enq("b", request_id="r")
    await bench.take_all()
    assert not (await bench.enq("b", request_id="r")).duplicate
    assert await bench.take_all() == ["b"]


async def test_a_repeated_request_is_answered_even_when_the_queue_is_full(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=1))
    await bench.enq("a", request_id="r")
    assert (await bench.enq("a", request_id="r")).duplicate


async def test_a_repeated_request_is_answered_although_it_acked_its_leases(bench: Bench) -> None:
    await bench.enq("job", queue="jobs")
    job = await bench.worker("jobs").get()
    first = await bench.enq("next", request_id="r", ack_lease_ids=lease_ids(job))
    again = await bench.enq("next", request_id="r", ack_lease_ids=lease_ids(job))
    assert (again.first_id, again.duplicate) == (first.first_id, True)


async def test_a_repeated_request_acks_what_is_still_leased(bench: Bench) -> None:
    """Of a worker that enqueued the next message and died before its ack: another one does the same, and is done."""
    await bench.enq("job", "other", queue="jobs")
    first = await bench.enq("next", request_id="r")
    worker = bench.worker("jobs")
    job = await worker.get()
    again = await bench.enq("next", request_id="r", ack_lease_ids=lease_ids(job))
    assert (again.first_id, again.duplicate) == (first.first_id, True)
    assert await bench.peek_bodies() == ["next"]
    assert (await worker.get()).body == b"other"
    counts = await bench.counts("jobs")
    assert (counts.ready, counts.leased, counts.acked) == (0, 1, 1)


async def test_requests_that_come_together_under_one_id_ack_the_leases_of_each(bench: Bench) -> None:
    await bench.enq("a", "b", queue="jobs")
    a, b = await bench.worker("jobs", prefetch=2).next()
    both = [bench.enq("next", request_id="r", ack_lease_ids=lease_ids(each)) for each in (a, b)]
    one, other = await asyncio.gather(*both)
    assert one.first_id == other.first_id
    assert await bench.peek_bodies() == ["next"]
    counts = await bench.counts("jobs")
    assert (counts.ready, counts.leased, counts.acked) == (0, 0, 2)


# -- acknowledging in the same step -----------------------------------------------------------------------------------


async def test_enqueueing_acks_leases_in_the_same_step(bench: Bench) -> None:
    await bench.enq("one", "two", queue="jobs")
    one, two = await bench.worker("jobs", prefetch=2).next()
    await bench.enq("next", ack_lease_ids=lease_ids(one, two))
    assert await bench.peek_bodies() == ["next"]
    counts = await bench.counts("jobs")
    assert (counts.ready, counts.leased, counts.acked) == (0, 0, 2)
    assert await bench.ack(one) == lease_ids(one)


async def test_enqueueing_to_the_same_queue_acks_as_well(bench: Bench) -> None:
    await bench.enq("one")
    worker = bench.worker()
    await bench.enq("two", ack_lease_ids=lease_ids(await worker.get()))
    two = await worker.get()
    assert (two.body, two.attempt) == (b"two", 1)


async def test_a_stale_lease_refuses_the_whole_step(bench: Bench) -> None:
    await bench.enq("one", "two", queue="jobs")
    one, two = await bench.worker("jobs", prefetch=2).next()
    await bench.ack(one)
    with pytest.raises(LeaseStale) as refused:
        await bench.enq("next", ack_lease_ids=lease_ids(two, one), request_id="r")
    assert refused.value.reason == "LEASE_STALE"
    assert await bench.peek_bodies(state=State.ALL) == []
    assert (await bench.counts("jobs")).leased == 1
    assert not (await bench.enq("next", ack_lease_ids=lease_ids(two), request_id="r")).duplicate


async def test_a_full_queue_refuses_the_whole_step(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=1))
    await bench.enq("job", queue="jobs")
    await bench.enq("full")
    job = await bench.worker("jobs").get()
    with pytest.raises(QueueFull):
        await bench.enq("next", ack_lease_ids=lease_ids(job))
    assert (await bench.counts("jobs")).leased == 1
    assert await bench.ack(job) == []


# -- bounds -----------------------------------------------------------------------------------------------------------


async def test_a_queue_takes_as_many_messages_as_its_bound_and_no_more(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=3))
    await bench.enq("a", "b")
    with pytest.raises(QueueFull, match="3") as refused:
        await bench.enq("c", "d")
    assert refused.value.reason == "QUEUE_FULL"
    await bench.enq("c")
    with pytest.raises(QueueFull):
        await bench.enq("d")
    await bench.enq("elsewhere", queue="other")
    assert await bench.take_all() == ["a", "b", "c"]
    await bench.enq("d")


async def test_leased_and_delayed_messages_count_against_the_bound(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=2))
    await bench.enq("leased")
    message = await bench.worker().get()
    await bench.enq("delayed", delay=60.0)
    with pytest.raises(QueueFull):
        await bench.enq("more")
    await bench.ack(message)
    await bench.enq("more")


async def test_a_message_may_take_the_place_of_another_in_a_full_queue(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=2, max_queue_bytes=4, max_bytes=4 + 2 * OVERHEAD_BYTES))
    await bench.enq("aa", "bb")
    worker = bench.worker()
    message = await worker.get()
    with pytest.raises(QueueFull):
        await bench.enq("a", "a", ack_lease_ids=lease_ids(message))
    with pytest.raises(QueueFull):
        await bench.enq("aaa", ack_lease_ids=lease_ids(message))
    await bench.enq("cc", ack_lease_ids=lease_ids(message))
    assert await bench.peek_bodies(state=State.ALL) == ["bb", "cc"]
    with pytest.raises(QueueFull):
        await bench.enq("")
    message = await worker.get()
    with pytest.raises(QueueFull):
        await bench.enq("elsewhere", queue="other", ack_lease_ids=lease_ids(message))
    assert await bench.ack(message) == []


async def test_a_message_in_another_queue_may_take_the_place_of_one_where_all_together_are_full(
    make_bench: MakeBench,
) -> None:
    bench = make_bench(bounds=Bounds(max_bytes=2 + OVERHEAD_BYTES))
    await bench.enq("aa")
    worker = bench.worker()
    message = await worker.get()
    with pytest.raises(QueueFull):
        await bench.enq("bbb", queue="next", ack_lease_ids=lease_ids(message))
    await bench.enq("bb", queue="next", ack_lease_ids=lease_ids(message))
    with pytest.raises(QueueFull):
        await bench.enq("")
    assert await bench.take_all("next") == ["bb"]


async def test_what_dead_letters_take_counts_against_the_bound_of_all_queues(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_bytes=10 * OVERHEAD_BYTES + 100))
    await bench.enq(*"abcd")
    for message in await bench.worker(prefetch=4).next():
        await bench.dead_letter(message, reason="r" * OVERHEAD_BYTES)
    await bench.enq("e")
    with pytest.raises(QueueFull, match="max_bytes") as refused:
        await bench.enq("f")
    assert refused.value.reason == "SERVER_FULL"


async def test_an_expired_message_makes_room(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=1, max_bytes=6 + OVERHEAD_BYTES))
    await bench.enq("mortal", ttl=10.0)
    bench.pass_time(10.0)
    await bench.enq("next")


async def test_giving_back_is_never_refused(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=2))
    await bench.enq("a", "b")
    a, b = await bench.worker(prefetch=2).next()
    await bench.requeue(a)
    await bench.requeue(b, delay=1.0)
    bench.pass_time(1.0)
    assert await bench.peek_bodies(state=State.ALL) == ["a", "b"]


async def test_dead_letters_are_never_refused(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_messages=1, max_queues=1))
    worker = bench.worker()
    for body in "a", "b":
        await bench.enq(body)
        await bench.dead_letter(await worker.get())
    assert await bench.take_all("q.dead") == ["a", "b"]


async def test_a_queue_takes_as_many_bytes_as_its_bound_and_no_more(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_queue_bytes=20))
    await bench.enq("12345", headers={"key": "ä"})
    with pytest.raises(QueueFull, match="20") as refused:
        await bench.enq("12345", "123456")
    assert refused.value.reason == "QUEUE_FULL"
    await bench.enq("12345", "12345")
    assert (await bench.counts()).bytes == 20


async def test_all_queues_together_take_as_many_bytes_as_their_bound(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_bytes=10 + 2 * OVERHEAD_BYTES))
    await bench.enq("12345", queue="one")
    with pytest.raises(QueueFull, match="max_bytes") as refused:
        await bench.enq("123456", queue="two")
    assert refused.value.reason == "SERVER_FULL"
    await bench.enq("12345", queue="two")
    await bench.take_all("one")
    await bench.enq("12345", queue="three")


async def test_there_are_as_many_queues_as_the_bound_and_no_more(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_queues=2))
    await bench.enq("a", queue="one")
    waiting = bench.worker("two")
    with pytest.raises(LimitReached, match="2") as refused:
        await bench.enq("a", queue="three")
    assert refused.value.reason == "TOO_MANY_QUEUES"
    with pytest.raises(LimitReached) as refused:
        bench.worker("three")
    assert refused.value.reason == "TOO_MANY_QUEUES"
    assert await bench.queues() == ["one", "two"]
    waiting.close()
    await bench.enq("a", queue="three")


async def test_queues_that_are_empty_and_unused_make_room(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_queues=2))
    for number in range(20):
        await bench.enq("a", queue=f"queue-{number}")
        assert await bench.take_all(f"queue-{number}") == ["a"]


# -- ids --------------------------------------------------------------------------------------------------------------


async def test_ids_rise_also_after_a_queue_was_empty(bench: Bench) -> None:
    await bench.enq("a", "b")
    await bench.take_all()
    assert (await bench.enq("c")).first_id == 3


async def test_ids_rise_also_across_the_absence_of_a_queue(make_bench: MakeBench) -> None:
    bench = make_bench(bounds=Bounds(max_queues=1))
    last = 0
    for _ in range(3):
        receipt = await bench.enq("a", "b")
        assert receipt.first_id > last
        last = receipt.first_id + 1
        await bench.take_all()
        await bench.enq("x", queue="other")
        await bench.take_all("other")


async def test_ids_of_dead_letters_rise_too(bench: Bench) -> None:
    await bench.enq("a", "b", queue="q.dead")
    await bench.enq("c")
    await bench.dead_letter(await bench.worker().get())
    assert [peeked.entry.id for peeked in await bench.peek("q.dead")] == [1, 2, 3]
