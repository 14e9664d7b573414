"""Single messages by their ids, ready or delayed, wherever they stand."""

from __future__ import annotations

from typing import Any

from stiqueue.message import State
from stiqueue.queue_settings import QueueSettings
from stiqueue.rules.engine import ready

from .bench import Bench, Worker
from .conftest import MakeBench


def exactly(bench: Bench, *ids: int, prefetch: int = 100, **asked: Any) -> Worker:
    return bench.worker(ids=ids, prefetch=prefetch, **asked)


async def taken(worker: Worker) -> list[str]:
    return [message.body.decode() for message in await worker.next()]


async def test_exactly_those_messages_are_delivered_in_the_order_asked_for(bench: Bench) -> None:
    await bench.enq(*"abcdef")
    worker = exactly(bench, 5, 2, 2, 6)
    e, b, f = await worker.next()
    assert (e.body, b.body, f.body) == (b"e", b"b", b"f")
    assert await bench.peek_bodies() == ["a", "c", "d"]
    await bench.ack(e, b)
    assert worker.nothing()
    await bench.requeue(f)
    assert worker.ended()
    assert await bench.take_all() == ["a", "c", "d", "f"]


async def test_messages_that_came_one_by_one_and_in_batches(bench: Bench) -> None:
    for body in "abc":
        await bench.enq(body)
    await bench.enq(*"defg")
    for message_id in (2, 5, 1, 7):
        worker = exactly(bench, message_id)
        await bench.ack(*await worker.next())
        assert worker.ended()
    assert await bench.peek_bodies() == ["c", "d", "f"]
    assert (await bench.counts()).ready == 3
    assert await bench.take_all() == ["c", "d", "f"]


async def test_one_given_back_is_at_its_old_place(bench: Bench) -> None:
    await bench.enq(*"abcde")
    worker = exactly(bench, 3)
    assert await taken(worker) == ["c"]
    await bench.enq("f")
    worker.close()
    assert await bench.peek_bodies() == list("abcdef")
    again = exactly(bench, 3)  # from where it is now
    assert await taken(again) == ["c"]
    again.close()
    assert await bench.take_all() == list("abcdef")


async def test_delayed_messages_are_found_too(bench: Bench) -> None:
    await bench.enq("a", delay=60.0)
    await bench.enq("b", delay=60.0)
    worker = exactly(bench, 1)
    (a,) = await worker.next()
    assert (await bench.counts()).delayed == 1
    await bench.requeue(a, delay=10.0)  # which is to reschedule it
    assert worker.ended()
    bench.pass_time(10.0)
    assert await bench.peek_bodies() == ["a"]
    bench.pass_time(50.0)
    assert await bench.take_all() == ["a", "b"]


async def test_a_delayed_message_that_nobody_settles_is_due_when_it_was(bench: Bench) -> None:
    await bench.enq("a", "b", delay=60.0)
    worker, other = exactly(bench, 1), exactly(bench, 2, ack_timeout=5.0)
    assert await taken(worker) == ["a"]
    assert await taken(other) == ["b"]
    worker.close()
    bench.pass_time(5.0)
    assert await bench.peek_bodies(state=State.DELAYED) == ["a", "b"]
    other.close()
    bench.pass_time(54.0)
    assert await bench.take_all() == []
    last = exactly(bench, 1)
    assert await taken(last) == ["a"]
    bench.pass_time(1.0)
    assert await bench.take_all() == ["b"]
    last.close()
    assert await bench.take_all() == ["a"]


async def test_a_delayed_message_that_is_given_back_without_a_delay_is_ready(bench: Bench) -> None:
    await bench.enq("a", delay=60.0)
    worker = exactly(bench, 1)
    await bench.requeue(*await worker.next())
    assert await bench.take_all() == ["a"]


async def test_a_message_that_is_not_there_or_leased_is_left_out(bench: Bench) -> None:
    await bench.enq(*"abc")
    other = bench.worker()
    a = await other.get()
    worker = exactly(bench, 1, 7, 2, 99)
    assert list(worker.consumer.leased_ids) == [1]
    (b,) = await worker.next()
    assert b.body == b"b"
    await bench.ack(b)
    assert worker.ended()
    await bench.ack(a)
    gone = exactly(bench, 1, 2)
    assert gone.ended()
    assert list(gone.consumer.leased_ids) == []
    assert exactly(bench, 1, queue="never").ended()


async def test_no_attempt_is_counted_however_it_ends(make_bench: MakeBench) -> None:
    bench = make_bench(max_attempts=1)
    await bench.enq("a")

    async def attempts() -> list[int]:
        return [each.entry.attempt for each in await bench.peek(state=State.ALL)]

    for end in ("requeue", "delay", "close", "time"):
        worker = exactly(bench, 1, ack_timeout=5.0)
        (a,) = await worker.next()
        assert a.attempt == 1
        assert await attempts() == [0]
        if end == "requeue":
            await bench.requeue(a)
        elif end == "delay":
            await bench.requeue(a, delay=60.0)
        elif end == "time":
            bench.pass_time(5.0)
        worker.close()
        assert await attempts() == [0]
    worker = exactly(bench, 1)
    await bench.dead_letter(await worker.get())
    bench.settle_down()
    (letter,) = await bench.peek("q.dead")
    assert letter.entry.properties.headers["stiqueue-dead-attempts"] == "0"


async def test_credit_holds_for_these_streams_as_well(bench: Bench) -> None:
    await bench.enq(*"abcd")
    worker = exactly(bench, 4, 3, 2, 1, prefetch=3, prefetch_bytes=2)
    d, c = await worker.next()
    assert worker.nothing()
    assert await bench.peek_bodies() == ["a", "b"]
    await bench.ack(d)
    b = await worker.get()
    await bench.ack(c, b)
    await bench.ack(await worker.get())
    assert worker.ended()


async def test_a_large_message_comes_alone(bench: Bench) -> None:
    large = "x" * (1 << 20)
    await bench.enq("a", large, "b")
    worker = exactly(bench, 1, 2, 3)
    assert await taken(worker) == ["a"]
    assert await taken(worker) == [large]
    assert await taken(worker) == ["b"]
    worker.close()


async def test_max_messages_and_finish_end_it_earlier(bench: Bench) -> None:
    await bench.enq(*"abc")
    worker = exactly(bench, 1, 2, 3, max_messages=2)
    await bench.ack(*await worker.next())
    assert worker.ended()
    finishing = exactly(bench, 3)
    finishing.consumer.finish()
    assert finishing.ended()
    assert await bench.peek_bodies() == ["c"]


async def test_with_no_ack_they_are_dropped(bench: Bench) -> None:
    await bench.enq(*"abc")
    worker = exactly(bench, 3, 1, no_ack=True)
    assert [message.body for message in await worker.rest()] == [b"c", b"a"]
    counts = await bench.counts()
    assert (counts.ready, counts.acked, counts.bytes) == (1, 2, 1)


async def test_neither_a_pause_nor_a_limit_keeps_them(bench: Bench) -> None:
    await ready(bench.engine.configure(QueueSettings("q", paused=True, max_leased=1), []))
    await bench.enq("a", "b")
    worker = exactly(bench, 1, 2)
    assert await taken(worker) == ["a", "b"]
    worker.close()
    assert (await bench.counts()).ready == 2


async def test_an_expired_message_is_not_there(bench: Bench) -> None:
    await bench.enq("a", ttl=5.0)
    await bench.enq("b")
    await bench.enq("c", ttl=5.0, delay=1.0)
    bench.clock.advance(5.0)  # nobody has noticed
    worker = exactly(bench, 1, 3)
    assert worker.ended()
    assert (await bench.counts()).expired == 2
    bench.pass_time(1.0)
    assert await bench.take_all() == ["b"]
    assert (await bench.counts()).expired == 2


async def test_one_with_a_ttl_expires_once_it_was_given_back(bench: Bench) -> None:
    await bench.enq("a", "b", "c", ttl=5.0)
    worker = exactly(bench, 2)
    (b,) = await worker.next()
    bench.pass_time(5.0)
    assert (await bench.counts()).expired == 2
    await bench.requeue(b)
    assert (await bench.counts()).expired == 3
    assert await bench.take_all() == []


async def test_all_priorities_are_looked_through(bench: Bench) -> None:
    for priority in (0, 7, 255):
        await bench.enq("a", "b", priority=priority)
    worker = exactly(bench, 6, 1, 4)
    assert [(each.id, each.priority) for each in await worker.next()] == [(6, 255), (1, 0), (4, 7)]
    worker.close()
    assert len(await bench.take_all()) == 6


async def test_exchange_brings_what_is_next_of_these(bench: Bench) -> None:
    await bench.enq(*"abc")
    worker = exactly(bench, 3, 1, prefetch=1)
    c = await worker.get()
    assert await ready(bench.engine.exchange(c.lease_id)) == []  # it comes on the stream
    a = await worker.get()
    assert a.body == b"a"
    await bench.ack(a)
    assert worker.ended()


async def test_many_of_a_long_queue(bench: Bench) -> None:
    for start in range(0, 3000, 500):
        await bench.enq(*map(str, range(start, start + 500)))
    ids = list(range(1, 3001, 3))
    worker = exactly(bench, *ids, prefetch=10_000)
    found: list[Any] = []
    while len(found) < len(ids):
        found += await worker.next()
    assert [each.id for each in found] == ids
    await bench.ack(*found)
    assert worker.ended()
    rest = [str(number) for number in range(3000) if number % 3]
    assert (await bench.counts()).ready == len(rest)
    assert await bench.peek_bodies() == rest
    assert await bench.take_all() == rest
