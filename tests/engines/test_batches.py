"""Requests that wait for their turn at a stream of JetStream travel together, and none pays for another."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from itertools import count
from typing import Any, cast

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from stiqueue.engines.jetstream.answers import Refused
from stiqueue.engines.jetstream.batches import MAX_BATCH, MOST_BYTES, UNDER_WAY, Batches, Publication
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.errors import Unavailable


class FakeStream:
    """Stores batches as JetStream does, when it is let."""

    def __init__(self) -> None:
        self.stored: list[list[bytes]] = []
        self.refused: list[int] = []
        """Sizes of the batches that were refused."""
        self.under_way = self.most_under_way = 0
        self.goes_on = asyncio.Event()
        self.error: Exception | None = None
        self._parts: dict[str, list[bytes]] = {}
        self._last = 0

    async def send(self, subject: str, body: bytes, headers: dict[str, str]) -> None:
        self._parts.setdefault(headers["Nats-Batch-Id"], []).append(body)

    async def ask(self, subject: str, body: bytes, headers: dict[str, str]) -> Msg:
        await self.send(subject, body, headers)
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        await self.goes_on.wait()
        self.under_way -= 1
        if self.error is not None:
            raise self.error
        batch = self._parts.pop(headers["Nats-Batch-Id"])
        if b"bad" in batch:
            self.refused.append(len(batch))
            return Msg(Client(), data=json.dumps({"error": {"err_code": 10201, "description": "bad"}}).encode())
        self.stored.append(batch)
        self._last += len(batch)
        return Msg(Client(), data=json.dumps({"seq": self._last}).encode())


def batches(stream: FakeStream) -> Batches:
    return Batches(cast(Cluster, stream), map(str, count()))


def request(*bodies: bytes) -> list[Publication]:
    return [Publication("s", body, {}) for body in bodies]


async def begun(work: Coroutine[Any, Any, int]) -> asyncio.Task[int]:
    """Begin a request; return when it waits."""
    task = asyncio.get_running_loop().create_task(work)
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def fill_up(stream: FakeStream, sent: Batches) -> list[asyncio.Task[int]]:
    """Have as many batches under way as there may be."""
    tasks = [await begun(sent.store("q", request(b"first"))) for _ in range(UNDER_WAY)]
    assert stream.under_way == UNDER_WAY
    return tasks


def test_what_waits_travels_together_and_each_gets_its_number() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        first = await fill_up(stream, sent)
        others = [await begun(sent.store("q", request(b"a%d" % n, b"b%d" % n))) for n in range(10)]
        stream.goes_on.set()
        assert await asyncio.gather(*first) == [1, 2, 3, 4]
        assert await asyncio.gather(*others) == [6, 8, 10, 12, 14, 16, 18, 20, 22, 24]
        assert len(stream.stored) == UNDER_WAY + 1
        assert stream.most_under_way == UNDER_WAY

    asyncio.run(work())


def test_a_batch_has_as_much_as_is_allowed_and_the_order_stays() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        tasks = await fill_up(stream, sent)
        sizes = [400, 600, 1, 999, 1]
        tasks += [await begun(sent.store("q", request(*[b"%d" % n] * size))) for n, size in enumerate(sizes)]
        large = b"x" * MOST_BYTES
        tasks += [await begun(sent.store("q", request(each))) for each in (large, b"y", large)]
        stream.goes_on.set()
        await asyncio.gather(*tasks)
        assert [len(batch) for batch in stream.stored[UNDER_WAY:]] == [MAX_BATCH, MAX_BATCH, 1, 1, 1, 1]

    asyncio.run(work())


def test_one_that_is_refused_is_no_reason_to_refuse_the_others() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        tasks = await fill_up(stream, sent)
        bodies = [b"%d" % n for n in range(5)] + [b"bad"] + [b"%d" % n for n in range(6, 9)]
        tasks += [await begun(sent.store("q", request(body))) for body in bodies]
        stream.goes_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [index for index, each in enumerate(results) if isinstance(each, Refused)] == [UNDER_WAY + 5]
        numbers = [each for each in results if not isinstance(each, BaseException)]
        assert numbers == sorted(numbers)
        stored = [body for batch in stream.stored for body in batch]
        assert stored[UNDER_WAY:] == [body for body in bodies if body != b"bad"]

    asyncio.run(work())


def test_without_an_answer_nobody_knows_and_nothing_is_sent_again() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        tasks = await fill_up(stream, sent)
        tasks += [await begun(sent.store("q", request(b"%d" % n))) for n in range(3)]
        stream.error = Unavailable("no answer")
        stream.goes_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results] == [Unavailable] * (UNDER_WAY + 3)
        assert stream.under_way == 0
        stream.error = None
        assert await sent.store("q", request(b"next")) == 1

    asyncio.run(work())


def test_one_that_nobody_waits_for_any_more_is_not_sent_and_harms_no_other() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        tasks = await fill_up(stream, sent)
        gone = await begun(sent.store("q", request(b"gone")))
        other = await begun(sent.store("q", request(b"other")))
        tasks[0].cancel()
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
        stream.goes_on.set()
        assert await other == UNDER_WAY + 1
        assert await asyncio.gather(*tasks[1:]) == [2, 3, 4]
        assert [b"gone"] not in stream.stored

    asyncio.run(work())


def test_streams_do_not_wait_for_each_other() -> None:
    async def work() -> None:
        stream = FakeStream()
        sent = batches(stream)
        tasks = await fill_up(stream, sent)
        tasks.append(await begun(sent.store("another", request(b"a"))))
        assert stream.under_way == UNDER_WAY + 1
        stream.goes_on.set()
        await asyncio.gather(*tasks)

    asyncio.run(work())
