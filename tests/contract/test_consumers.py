"""A subscription: its credit, how long it waits and how it ends."""

from __future__ import annotations

import pytest

from stiqueue.errors import Unavailable
from stiqueue.message import Outcome

from .bench import Bench


async def test_a_consumer_holds_one_message_at_a_time_by_default(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    message = await worker.get()
    assert worker.nothing()
    await bench.ack(message)
    assert (await worker.get()).body == b"b"


@pytest.mark.parametrize("prefetch", [1, 2, 3, 10])
async def test_a_consumer_never_holds_more_than_its_prefetch(bench: Bench, prefetch: int) -> None:
    await bench.enq(*"abcdefghijklmno")
    worker = bench.worker(prefetch=prefetch)
    messages = await worker.next()
    assert len(messages) == prefetch
    assert worker.nothing()
    await bench.ack(messages[0])
    assert len(await worker.next()) == 1
    assert worker.nothing()
    assert (await bench.counts()).leased == prefetch


async def test_every_outcome_frees_credit_but_extending_does_not(bench: Bench) -> None:
    await bench.enq("a", "b", "c", "d")
    worker = bench.worker(prefetch=2)
    a, b = await worker.next()
    await bench.extend(a, b, seconds=60.0)
    assert worker.nothing()
    await bench.requeue(a, delay=10.0)
    await bench.dead_letter(b)
    assert await worker.bodies() + await worker.bodies() == ["c", "d"]


async def test_prefetch_bytes_is_exact(bench: Bench) -> None:
    await bench.enq(*["four"] * 5)
    worker = bench.worker(prefetch=10, prefetch_bytes=12)
    messages = await worker.next()
    assert len(messages) == 3
    assert worker.nothing()
    await bench.ack(messages[1])
    assert len(await worker.next()) == 1


async def test_prefetch_bytes_is_not_exceeded_by_a_message_that_does_not_fit(bench: Bench) -> None:
    await bench.enq(*["four"] * 5)
    worker = bench.worker(prefetch=10, prefetch_bytes=11)
    first, _ = await worker.next()
    assert worker.nothing(), "3 bytes are left, and the next message has 4"
    await bench.ack(first)
    assert len(await worker.next()) == 1


async def test_a_consumer_without_room_for_the_next_message_keeps_it_from_nobody(bench: Bench) -> None:
    await bench.enq("four")
    full, free = bench.worker(prefetch=10, prefetch_bytes=5), bench.worker()
    await full.next()
    assert full.nothing()
    assert free.nothing()
    await bench.enq("next")
    assert (await free.get()).body == b"next"


async def test_prefetch_bytes_counts_headers(bench: Bench) -> None:
    await bench.enq("four", "four", headers={"key": "value"})
    worker = bench.worker(prefetch=10, prefetch_bytes=12 + 11)
    assert len(await worker.next()) == 1


async def test_one_message_is_delivered_even_when_it_is_larger_than_prefetch_bytes(bench: Bench) -> None:
    await bench.enq("too large for that", "x")
    worker = bench.worker(prefetch=10, prefetch_bytes=3)
    message = await worker.get()
    assert worker.nothing()
    await bench.ack(message)
    assert (await worker.get()).body == b"x"


async def test_max_messages_ends_the_subscription_when_that_many_are_settled(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker(max_messages=2)
    await bench.ack(await worker.get())
    second = await worker.get()
    assert worker.nothing(), "it still holds one"
    await bench.ack(second)
    assert worker.ended()
    counts = await bench.counts()
    assert (counts.ready, counts.consumers) == (1, 0)


async def test_max_messages_is_not_exceeded_by_prefetch(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker(max_messages=2, prefetch=10)
    a, b = await worker.next()
    await bench.ack(a)
    assert worker.nothing()
    await bench.requeue(b)
    assert worker.ended()


async def test_max_messages_counts_deliveries(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(max_messages=2)
    await bench.requeue(await worker.get())
    await bench.requeue(await worker.get())
    assert worker.ended()
    assert await bench.peek_bodies() == ["a"]


async def test_wait_0_takes_what_is_ready_now_and_ends(bench: Bench) -> None:
    await bench.enq("a", "b")
    await bench.enq("later", delay=10.0)
    worker = bench.worker(wait=0.0)
    await bench.ack(await worker.get())
    await bench.ack(await worker.get())
    assert worker.ended()


async def test_wait_0_on_an_empty_queue_ends_at_once(bench: Bench) -> None:
    assert bench.worker(wait=0.0).ended()


async def test_wait_0_does_not_end_while_it_holds_a_message(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(wait=0.0, prefetch=2)
    message = await worker.get()
    bench.pass_time(3600.0)
    assert worker.nothing()
    await bench.enq("b")
    assert (await worker.get()).body == b"b"
    await bench.ack(message)
    assert worker.nothing()


async def test_a_consumer_ends_when_it_was_idle_for_its_wait(bench: Bench) -> None:
    worker = bench.worker(wait=10.0)
    assert worker.nothing()
    assert worker.consumer.patience() == pytest.approx(10.0)
    bench.pass_time(9.0)
    assert worker.nothing()
    assert worker.consumer.patience() == pytest.approx(1.0)
    bench.pass_time(1.0)
    assert worker.ended()
    assert (await bench.counts()).consumers == 0


async def test_a_consumer_is_idle_only_while_it_holds_nothing(bench: Bench) -> None:
    worker = bench.worker(wait=10.0)
    assert worker.nothing()
    bench.pass_time(9.0)
    await bench.enq("a")
    message = await worker.get()
    assert worker.consumer.patience() is None
    bench.pass_time(100.0)
    assert worker.nothing()
    await bench.ack(message)
    assert worker.nothing()
    bench.pass_time(9.0)
    assert worker.nothing()
    bench.pass_time(1.0)
    assert worker.ended()


async def test_a_message_that_comes_in_the_last_moment_is_delivered(bench: Bench) -> None:
    worker = bench.worker(wait=10.0)
    assert worker.nothing()
    await bench.enq("a")
    await worker.woken()  # a cluster may deliver it later
    bench.pass_time(10.0)
    assert (await worker.get()).body == b"a"


async def test_without_wait_a_consumer_waits_for_ever(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    assert worker.consumer.patience() is None
    bench.pass_time(1e7)
    assert worker.nothing()


async def test_a_finished_consumer_that_holds_nothing_ends(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    worker.consumer.finish()
    assert worker.wakes == 1
    await bench.enq("a")
    assert worker.ended()
    assert await bench.peek_bodies() == ["a"]


async def test_a_finished_consumer_is_given_nothing_more_and_ends_when_all_is_settled(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker(prefetch=2)
    a, b = await worker.next()
    worker.consumer.finish()
    await bench.ack(a)
    assert worker.nothing()
    await bench.ack(b)
    assert worker.ended()
    assert await bench.peek_bodies() == ["c"]


async def test_a_finished_consumer_still_gets_what_it_was_handed_before(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    await bench.enq("a")
    await worker.woken()
    worker.consumer.finish()
    message = await worker.get()
    assert await bench.ack(message) == []
    assert worker.ended()


@pytest.mark.parametrize("outcome", [Outcome.ACK, Outcome.REQUEUE, Outcome.DEAD_LETTER])
async def test_settling_with_close_stream_ends_the_consumer(bench: Bench, outcome: Outcome) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    message = await worker.get()
    await bench.settle(message, outcome=outcome, close_stream=True)
    assert worker.wakes == 1
    assert worker.ended()
    assert await bench.peek_bodies() == (["a", "b"] if outcome is Outcome.REQUEUE else ["b"])


async def test_close_stream_ends_a_consumer_once_it_holds_nothing(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker(prefetch=2)
    a, b = await worker.next()
    await bench.ack(a, close_stream=True)
    assert worker.nothing()
    await bench.ack(b)
    assert worker.ended()


async def test_close_stream_ends_every_consumer_of_the_leases(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    first, second, third = bench.worker(), bench.worker(), bench.worker()
    a, b = await first.get(), await second.get()
    await third.next()
    await bench.ack(a, b, close_stream=True)
    assert first.ended()
    assert second.ended()
    assert third.nothing()


async def test_close_stream_with_a_stale_lease_ends_nobody(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker()
    message = await worker.get()
    await bench.ack(message)
    await bench.ack(message, close_stream=True)
    assert (await worker.get()).body == b"b"


async def test_an_expired_lease_of_a_finished_consumer_ends_it(bench: Bench) -> None:
    await bench.enq("a")
    worker = bench.worker(ack_timeout=10.0)
    await worker.next()
    worker.consumer.finish()
    assert worker.nothing()
    bench.pass_time(10.0)
    assert worker.ended()
    assert await bench.peek_bodies() == ["a"]


async def test_with_no_ack_a_message_is_forgotten_as_it_is_delivered(bench: Bench) -> None:
    await bench.enq("a", "b")
    worker = bench.worker(no_ack=True)
    message = await worker.get()
    assert message.lease_id == ""
    assert message.attempt == 1
    worker.close()
    counts = await bench.counts()
    assert (counts.ready, counts.leased, counts.acked, counts.bytes) == (1, 0, 1, 1)


async def test_with_no_ack_max_messages_ends_the_subscription(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker(no_ack=True, max_messages=2, prefetch=10)
    assert await worker.bodies() == ["a", "b"]
    assert worker.ended()
    assert await bench.peek_bodies() == ["c"]


async def test_with_no_ack_the_consumer_is_woken_again_for_the_next_message(bench: Bench) -> None:
    worker = bench.worker(no_ack=True)
    for body in "a", "b", "c":
        assert worker.nothing()
        await bench.enq(body)
        assert (await worker.get()).body.decode() == body


async def test_a_closed_consumer_is_given_nothing(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    worker.close()
    await bench.enq("a")
    assert worker.ended()
    assert await bench.peek_bodies() == ["a"]


async def test_closing_the_engine_ends_its_consumers_and_refuses_more(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    await bench.engine.close()
    assert worker.ended()
    with pytest.raises(Unavailable):
        await bench.enq("a")
    with pytest.raises(Unavailable):
        bench.worker()
    await bench.engine.close()
