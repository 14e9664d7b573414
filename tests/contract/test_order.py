"""In which order messages are delivered, and to whom."""

from __future__ import annotations

import pytest

from .bench import Bench


async def test_messages_are_delivered_in_the_order_they_came(bench: Bench) -> None:
    await bench.enq("a", "b")
    await bench.enq("c")
    assert await bench.take_all() == ["a", "b", "c"]


async def test_ids_rise_by_one_from_1(bench: Bench) -> None:
    assert (await bench.enq("a", "b")).first_id == 1
    receipt = await bench.enq("c")
    assert (receipt.first_id, receipt.count, receipt.duplicate) == (3, 1, False)


async def test_each_queue_has_ids_of_its_own(bench: Bench) -> None:
    await bench.enq("a", queue="one")
    assert (await bench.enq("b", queue="two")).first_id == 1


async def test_higher_priority_is_delivered_first_and_each_in_order(bench: Bench) -> None:
    await bench.enq("low 1", "low 2")
    await bench.enq("high 1", priority=255)
    await bench.enq("mid", priority=7)
    await bench.enq("high 2", priority=255)
    assert await bench.take_all() == ["high 1", "high 2", "mid", "low 1", "low 2"]


async def test_a_message_carries_what_it_was_enqueued_with(bench: Bench) -> None:
    await bench.enq("a", priority=9, headers={"k": "v", "ä": "ö"})
    message = await bench.worker().get()
    assert (message.id, message.body, message.attempt, message.priority) == (1, b"a", 1, 9)
    assert dict(message.headers) == {"k": "v", "ä": "ö"}
    assert message.enqueue_time_ms == int(bench.clock.wall() * 1000)
    assert message.lease_id


async def test_empty_and_binary_bodies_arrive_as_they_were(bench: Bench) -> None:
    await bench.enq("", "\0\r\n", "\x7fä")
    assert await bench.take_all() == ["", "\0\r\n", "\x7fä"]


async def test_a_requeued_message_returns_to_its_old_place(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    worker = bench.worker()
    await bench.requeue(await worker.get())
    assert await bench.peek_bodies() == ["b", "c"], "the worker that asks again has `a` already"
    assert (await worker.get()).body == b"a"


async def test_a_requeued_message_returns_to_its_old_place_within_its_priority(bench: Bench) -> None:
    await bench.enq("low 1", "low 2")
    await bench.enq("high 1", "high 2", priority=1)
    worker = bench.worker(prefetch=3)
    await worker.next()
    worker.close()
    assert await bench.peek_bodies() == ["high 1", "high 2", "low 1", "low 2"]


async def test_closing_gives_everything_back_to_its_old_place(bench: Bench) -> None:
    await bench.enq("a", "b", "c", "d")
    first, second = bench.worker(), bench.worker(prefetch=2)
    await first.next()
    assert await second.bodies() == ["b", "c"]
    second.close()
    assert await bench.peek_bodies() == ["b", "c", "d"]
    first.close()
    assert await bench.peek_bodies() == ["a", "b", "c", "d"]


async def test_what_is_given_back_goes_to_waiting_consumers_in_ascending_order(bench: Bench) -> None:
    await bench.enq("a", "b", "c")
    holder = bench.worker(prefetch=3)
    await holder.next()
    waiting = [bench.worker() for _ in range(3)]
    assert all(worker.nothing() for worker in waiting)
    holder.close()
    assert [(await worker.get()).body for worker in waiting] == [b"a", b"b", b"c"]


async def test_what_is_given_back_is_ascending_however_it_was_taken(bench: Bench) -> None:
    await bench.enq("a", "b")
    first, second = bench.worker(), bench.worker(prefetch=2)
    a = await first.get()
    assert (await second.get()).body == b"b"
    assert second.nothing()
    await bench.requeue(a)
    assert (await second.get()).body == b"a", "the second worker holds b and a, in this order"
    first.close()
    waiting = [bench.worker() for _ in range(2)]
    assert all(worker.nothing() for worker in waiting)
    second.close()
    assert [(await worker.get()).body for worker in waiting] == [b"a", b"b"]


async def test_waiting_consumers_are_served_in_the_order_they_came(bench: Bench) -> None:
    workers = [bench.worker() for _ in range(5)]
    assert all(worker.nothing() for worker in workers)
    for number, worker in enumerate(workers):
        await bench.enq(str(number))
        assert (await worker.get()).body == str(number).encode()


async def test_one_batch_is_shared_by_the_waiting_consumers_in_the_order_they_came(bench: Bench) -> None:
    workers = [bench.worker() for _ in range(3)]
    assert all(worker.nothing() for worker in workers)
    await bench.enq("a", "b", "c", "d")
    assert [(await worker.get()).body for worker in workers] == [b"a", b"b", b"c"]


async def test_a_consumer_that_settles_waits_behind_those_that_wait_already(bench: Bench) -> None:
    first, second = bench.worker(), bench.worker()
    assert first.nothing()
    assert second.nothing()
    await bench.enq("a")
    await bench.ack(await first.get())
    assert first.nothing()
    await bench.enq("b")
    assert (await second.get()).body == b"b"
    assert first.nothing()


async def test_a_message_is_with_one_consumer_at_a_time(bench: Bench) -> None:
    await bench.enq("a")
    first, second = bench.worker(), bench.worker()
    await first.next()
    assert second.nothing()


async def test_each_message_wakes_one_consumer(bench: Bench) -> None:
    workers = [bench.worker() for _ in range(50)]
    assert all(worker.nothing() for worker in workers)
    for count in range(1, 11):
        await bench.enq("one")
        assert sum(worker.wakes for worker in workers) == count
    await bench.enq(*["more"] * 10)
    assert [worker.wakes for worker in workers] == [1] * 20 + [0] * 30


async def test_a_message_for_another_queue_wakes_nobody(bench: Bench) -> None:
    worker = bench.worker()
    assert worker.nothing()
    await bench.enq("a", queue="other")
    assert worker.wakes == 0
    assert worker.nothing()


async def test_a_message_that_nobody_may_take_yet_wakes_nobody(bench: Bench) -> None:
    worker = bench.worker()
    await bench.enq("a")
    await worker.next()
    await bench.enq("b")
    await bench.enq("c", delay=60.0)
    assert worker.nothing()
    assert worker.wakes == 0


@pytest.mark.parametrize("number", [1, 999, 1000, 1001, 2500])
async def test_a_large_batch_is_delivered_whole_and_in_order(bench: Bench, number: int) -> None:
    bodies = [str(each) for each in range(number)]
    receipt = await bench.enq(*bodies)
    assert receipt.count == number
    assert await bench.take_all() == bodies
