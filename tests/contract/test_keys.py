"""Keys: in order and one at a time; unique keys: no second message while the first is there."""

from __future__ import annotations

import pytest

from stiqueue.errors import LeaseStale
from stiqueue.message import State

from .bench import Bench
from .conftest import MakeBench


async def test_messages_of_one_key_are_delivered_one_at_a_time(bench: Bench) -> None:
    await bench.enq("a1", "a2", key="a")
    await bench.enq("b1", key="b")
    await bench.enq("none")
    worker = bench.worker(prefetch=10)
    first, *others = await worker.next()
    assert [message.body for message in (first, *others)] == [b"a1", b"b1", b"none"]
    assert first.key == "a"
    assert worker.nothing()
    counts = await bench.counts()
    assert (counts.ready, counts.blocked, counts.leased) == (1, 1, 3)
    assert [(peeked.entry.body, peeked.blocked) for peeked in await bench.peek()] == [(b"a2", True)]
    await bench.ack(first)
    assert (await worker.get()).body == b"a2"
    assert (await bench.counts()).blocked == 0


@pytest.mark.parametrize("delay", [0.0, 10.0])
async def test_a_message_that_was_given_back_is_still_the_head_of_its_key(bench: Bench, delay: float) -> None:
    await bench.enq("a1", "a2", key="a")
    await bench.requeue(await bench.worker(max_messages=1).get(), delay=delay)
    worker = bench.worker()
    if delay:
        assert worker.nothing()
        assert (await bench.counts()).blocked == 1
        bench.pass_time(delay)
    message = await worker.get()
    assert (message.body, message.attempt) == (b"a1", 2)


async def test_a_message_that_waits_for_its_delay_does_not_hold_up_its_key(bench: Bench) -> None:
    await bench.enq("later", key="a", delay=10.0)
    await bench.enq("now", key="a")
    assert await bench.take_all() == ["now"]
    bench.pass_time(10.0)
    assert await bench.take_all() == ["later"]


async def test_a_key_goes_by_priority_and_has_one_message_at_a_time_over_all(bench: Bench) -> None:
    await bench.enq("low", key="a")
    await bench.enq("high 1", "high 2", key="a", priority=9)
    worker = bench.worker(prefetch=10)
    for body in (b"high 1", b"high 2", b"low"):
        message = await worker.get()
        assert message.body == body
        assert worker.nothing()
        await bench.ack(message)


async def test_after_a_dead_letter_the_next_of_its_key_follows(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a1", "a2", "a3", key="a")
    worker = bench.worker()
    await bench.dead_letter(await worker.get())
    await bench.requeue(await worker.get())
    bench.settle_down()
    assert (await worker.get()).body == b"a3"
    letters = bench.worker("q.dead", prefetch=10)
    first = await letters.get()
    assert (first.body, first.key) == (b"a1", "a")


async def test_after_a_lease_that_ran_out_the_same_message_comes_again(bench: Bench) -> None:
    await bench.enq("a1", "a2", key="a")
    await bench.worker(ack_timeout=5.0).get()
    other = bench.worker()
    assert other.nothing()
    bench.pass_time(5.0)
    assert (await other.get()).body == b"a1"


async def test_an_expired_message_frees_its_key(bench: Bench) -> None:
    await bench.enq("a1", key="a", ttl=5.0)
    await bench.enq("a2", key="a")
    worker = bench.worker()
    await bench.requeue(await worker.get(), delay=60.0)
    assert worker.nothing()
    bench.pass_time(5.0)
    assert (await worker.get()).body == b"a2"


async def test_one_consumer_is_woken_when_a_key_is_free(bench: Bench) -> None:
    await bench.enq("a1", "a2", key="a")
    first, second = bench.worker(), bench.worker()
    message = await first.get()
    assert second.nothing()
    await bench.ack(message)
    assert (await second.get()).body == b"a2"


# -- unique keys ------------------------------------------------------------------------------------------------------


async def test_a_unique_key_enqueues_nothing_while_its_message_is_there(bench: Bench) -> None:
    first = await bench.enq("1", unique_key="u")
    again = await bench.enq("2", unique_key="u")
    assert (again.first_id, again.count, again.duplicate) == (first.first_id, 1, True)
    assert (await bench.enq("3", unique_key="v")).duplicate is False
    assert (await bench.enq("4", unique_key="u", queue="other")).duplicate is False
    message, _ = await bench.worker(prefetch=2, max_messages=2).next()
    assert message.unique_key == "u"
    assert (await bench.enq("5", unique_key="u")).duplicate, "leased"
    await bench.requeue(message, delay=10.0)
    assert (await bench.enq("6", unique_key="u")).duplicate, "delayed"
    bench.pass_time(10.0)
    message = await bench.worker().get()
    await bench.ack(message)
    assert not (await bench.enq("7", unique_key="u")).duplicate


async def test_a_unique_key_is_free_when_its_message_has_expired(bench: Bench) -> None:
    await bench.enq("1", unique_key="u", ttl=5.0)
    bench.clock.advance(5.0)  # and nobody has noticed
    assert not (await bench.enq("2", unique_key="u")).duplicate
    bench.pass_time(0.0)
    assert (await bench.enq("3", unique_key="u")).duplicate
    assert await bench.take_all() == ["2"], "purged"
    assert not (await bench.enq("4", unique_key="u")).duplicate


async def test_a_dead_letter_frees_its_unique_key(bench: Bench) -> None:
    await bench.enq("1", unique_key="u")
    await bench.dead_letter(await bench.worker().get())
    assert not (await bench.enq("2", unique_key="u")).duplicate
    bench.settle_down()
    assert (await bench.worker("q.dead").get()).unique_key == ""


async def test_a_repeated_request_is_answered_as_at_first_whatever_became_of_the_unique_key(bench: Bench) -> None:
    first = await bench.enq("1", unique_key="u")
    assert (await bench.enq("2", unique_key="u", request_id="r")).first_id == first.first_id
    await bench.ack(await bench.worker().get())
    again = await bench.enq("2", unique_key="u", request_id="r")
    assert (again.first_id, again.duplicate) == (first.first_id, True)
    assert (await bench.counts()).ready == 0


async def test_a_job_may_be_followed_by_one_with_its_own_unique_key(bench: Bench) -> None:
    await bench.enq("1", unique_key="u")
    worker = bench.worker()
    message = await worker.get()
    receipt = await bench.enq("2", unique_key="u", ack_lease_ids=[message.lease_id])
    assert not receipt.duplicate
    assert (await bench.enq("3", unique_key="u")).duplicate
    with pytest.raises(LeaseStale):
        await bench.enq("4", unique_key="u", ack_lease_ids=[message.lease_id])


async def test_leases_are_acked_although_the_unique_key_is_taken(bench: Bench) -> None:
    await bench.enq("job")
    await bench.enq("next", unique_key="u")
    message = await bench.worker(max_messages=1).get()
    assert (await bench.enq("again", unique_key="u", ack_lease_ids=[message.lease_id])).duplicate
    assert (await bench.counts()).leased == 0
    assert [peeked.entry.body for peeked in await bench.peek(state=State.ALL)] == [b"next"]
