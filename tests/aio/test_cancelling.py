"""A cancelled or failed task gives its message back, and never harms the client that others use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import aclosing, suppress
from typing import Any

import pytest
from support.ports import free_port
from support.waiting import PATIENCE, soon, until

from stiqueue import AsyncMessage, AsyncSQClient, Closed, SQClient, SQServer

Body = Callable[[AsyncSQClient], Coroutine[Any, Any, Any]]


def run(server: SQServer, body: Body, **options: Any) -> Any:
    """Run a test's body with a client, on an event loop that complains of everything."""

    async def main() -> Any:
        async with AsyncSQClient(port=server.port, **options) as client:
            return await asyncio.wait_for(body(client), PATIENCE)

    return asyncio.run(main(), debug=True)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    assert task.cancelled()


def test_a_cancelled_deq_ends_its_subscription_and_the_client_goes_on(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        async def consumers() -> int:
            return (await ours.counts()).consumers

        waiting = asyncio.ensure_future(ours.deq())
        await soon(consumers, 1)
        await cancelled(waiting)
        await soon(consumers, 0)
        await ours.enq("a")
        assert await ours.deq(timeout=0) == b"a"

    run(server, body)
    assert client.counts().acked == 1


def test_deq_under_a_time_limit_of_asyncio_loses_nothing(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        for _ in range(20):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(ours.deq(), random.uniform(0, 0.01))
        await ours.enq("a")
        assert await ours.deq(timeout=PATIENCE) == b"a"

    run(server, body)


def test_a_cancelled_task_gives_its_message_back_to_its_old_place(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        await ours.enq_many(list("ab"))
        holding = asyncio.Event()

        async def work() -> None:
            assert await ours.deq() == b"a"
            holding.set()
            await asyncio.sleep(PATIENCE)

        task = asyncio.ensure_future(work())
        await holding.wait()
        assert await ours.peek() == b"b"
        await cancelled(task)
        await soon(ours.peek, b"a,b")

    run(server, body)
    assert client.counts().acked == 0


def test_a_failed_task_gives_its_message_back_and_its_siblings_theirs(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        await ours.enq_many(list("abc"))
        working: list[AsyncMessage] = []
        all_there = asyncio.Event()

        async def work(fails: bool) -> None:
            message = await ours.deq()
            assert message is not None
            working.append(message)
            if len(working) == 3:
                all_there.set()
            await all_there.wait()
            if fails:
                raise RuntimeError("a bug")
            await asyncio.sleep(PATIENCE)

        tasks = [asyncio.ensure_future(work(number == 1)) for number in range(3)]
        with pytest.raises(RuntimeError, match="a bug"):
            await asyncio.gather(*tasks)
        for task in tasks:
            task.cancel()
        await soon(ours.peek, b"a,b,c")

    run(server, body)


def test_what_a_task_that_ended_well_took_is_held_until_the_client_closes(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        await ours.enq_many(list("ab"))
        assert await asyncio.ensure_future(ours.deq()) == b"a"
        assert await asyncio.ensure_future(ours.deq()) == b"b"
        assert (await ours.counts()).leased == 2

    run(server, body)
    assert client.counts().acked == 2


def test_what_was_settled_by_hand_stays_settled_when_the_task_is_cancelled(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        await ours.enq_many(list("ab"))
        holding = asyncio.Event()

        async def work() -> None:
            message = await ours.deq()
            assert message is not None
            assert await message.ack() is True
            holding.set()
            await asyncio.sleep(PATIENCE)

        task = asyncio.ensure_future(work())
        await holding.wait()
        await cancelled(task)
        assert await ours.peek() == b"b"

    run(server, body)


def test_an_exception_in_an_async_with_block_gives_back(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("ab"))

    async def body(ours: AsyncSQClient) -> None:
        assert await ours.deq() == b"a"
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(server, body)
    until(client.peek, b"a,b")


def test_a_loop_that_is_cancelled_gives_back_what_it_held_and_what_was_sent_ahead(
    server: SQServer, client: SQClient
) -> None:
    client.enq_many(list("abcd"))

    async def body(ours: AsyncSQClient) -> None:
        second = asyncio.Event()

        async def work() -> None:
            async for message in ours.consume(prefetch=3):
                if message == b"b":
                    second.set()
                    await asyncio.sleep(PATIENCE)

        task = asyncio.ensure_future(work())
        await second.wait()
        await cancelled(task)
        await soon(ours.peek, b"b,c,d")

    run(server, body)
    assert client.counts().acked == 1


def test_closing_the_iterator_waits_for_the_end_of_the_loop(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"))

    async def body(ours: AsyncSQClient) -> None:
        async with aclosing(ours.consume(prefetch=2)) as loop:
            async for message in loop:
                if message == b"b":
                    break
        assert (await ours.counts()).acked == 1
        await soon(ours.peek, b"b,c")

    run(server, body)


def test_cancelling_some_of_many_enqs_harms_no_other(server: SQServer, client: SQClient) -> None:
    """They travel together, so the one that is cancelled may be the one that sends for all."""
    chosen = random.Random(7)

    async def body(ours: AsyncSQClient) -> None:
        for turn in range(30):
            tasks = [asyncio.ensure_future(ours.enq(f"{turn}-{number}")) for number in range(20)]
            for _ in range(chosen.randrange(4)):
                await asyncio.sleep(0)
            victims = set(chosen.sample(range(20), 7))
            for number in victims:
                tasks[number].cancel()
            done = await asyncio.gather(*tasks, return_exceptions=True)
            for number, outcome in enumerate(done):
                if number in victims:
                    assert isinstance(outcome, (int, asyncio.CancelledError)), outcome
                else:
                    assert isinstance(outcome, int), outcome
            found = (await ours.peek()).decode().split(",")
            assert len(found) == len(set(found)), "enqueued twice"
            assert {f"{turn}-{number}" for number in set(range(20)) - victims} <= set(found)
            await ours.purge()

    run(server, body)


def test_a_cancelled_enq_many_and_purge_and_peek_leave_the_client_in_order(server: SQServer, client: SQClient) -> None:
    async def body(ours: AsyncSQClient) -> None:
        calls: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: ours.enq_many([b"x" * 1000] * 20_000),
            ours.purge,
            ours.peek_messages,
            ours.queues,
            ours.redrive,
        ]
        for call in calls * 3:
            task = asyncio.ensure_future(call())
            await asyncio.sleep(random.uniform(0, 0.02))
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await ours.purge()
        await ours.enq("a")
        assert await ours.deq(timeout=PATIENCE) == b"a"

    run(server, body)


def test_closing_the_client_ends_what_waits_with_closed(server: SQServer, client: SQClient) -> None:
    """Not with `CancelledError`: nobody cancelled these tasks."""

    async def body(ours: AsyncSQClient) -> None:
        async def loop() -> None:
            async for _ in ours.consume(queue="loop"):
                pass

        waiting = [asyncio.ensure_future(ours.deq()), asyncio.ensure_future(loop())]

        async def consumers() -> int:
            return sum(counts.consumers for counts in (await ours.queues()).values())

        await soon(consumers, 2)
        await ours.close()
        for outcome in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(outcome, Closed), outcome
        with pytest.raises(Closed):
            await ours.enq("a")

    run(server, body)


def test_closing_the_client_ends_calls_under_way_with_closed(client: SQClient) -> None:
    with SQServer(port=free_port()) as server:
        port = server.port

    async def main() -> None:
        ours = AsyncSQClient(port=port, timeout=PATIENCE)
        calls = [asyncio.ensure_future(call) for call in (ours.enq("a"), ours.enq("b"), ours.cnt(), ours.peek())]
        await asyncio.sleep(0.2)
        assert not any(call.done() for call in calls)
        await ours.close()
        for outcome in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(outcome, Closed), outcome

    asyncio.run(main())
