"""Pages and searches through a queue on a real server, against what a list of all messages says."""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from itertools import islice
from typing import Any

import pytest
from support.waiting import PATIENCE

from stiqueue import SQClient, SQServer
from stiqueue.message import State
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web import search as searching
from stiqueue.web.link import Link, Spot
from stiqueue.web.options import WebOptions
from stiqueue.web.pages import MOST_LANES, SCANNED, SIZE, Page, Pager
from stiqueue.web.search import MOST_FOUND, MOST_LOOKED_AT, Wanted, search
from web.console import Console

READY = pb.MESSAGE_STATE_READY
MANY = 4_000


@pytest.fixture(autouse=True)
def _no_search_runs_out_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "MOST_SECONDS", PATIENCE)


class Counting(Link):
    """A connection that counts its questions."""

    questions = 0

    def peek_all(self, queue: str, state: int, after: Spot, limit: int) -> AsyncIterator[pb.PeekedMessage]:
        self.questions += 1
        return super().peek_all(queue, state, after, limit)


def run(server: SQServer, work: Callable[[Counting], Coroutine[Any, Any, Any]]) -> Any:
    async def linked() -> Any:
        link = Counting(WebOptions(port=server.port), None)
        try:
            return await work(link)
        finally:
            await link.close()

    return asyncio.run(linked())


def ids(page: Page) -> list[int]:
    return [each.message.id for each in page.messages]


def spot(message: pb.PeekedMessage) -> Spot:
    return Spot(message.message.id, message.message.priority)


async def walk(pager: Callable[[], Pager], known: int) -> tuple[list[list[int]], list[list[int]]]:
    """Return the ids of all pages on the way forth, and on the way back."""
    page = await pager().start()
    forth = [ids(page)]
    assert not page.has_previous
    while page.has_next:
        page = await pager().after(spot(page.messages[-1]))
        forth.append(ids(page))
        assert len(forth) < known
    back = [forth[-1]]
    while page.has_previous:
        page = await pager().before(spot(page.messages[0]))
        back.append(ids(page))
        assert len(back) < known
    return forth, back


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("kept", ["all", "every-ninth", "clumps", "ends"])
def test_every_message_is_on_one_page_both_ways(server: SQServer, client: SQClient, kept: str, newest: bool) -> None:
    client.enq_many([b"x"] * MANY, queue="jobs")
    keeps = {
        "all": lambda number: True,
        "every-ninth": lambda number: number % 9 == 0,
        "clumps": lambda number: number % 1_000 < 70 or number == 2_500,
        "ends": lambda number: number < 120 or number > MANY - 120,
    }[kept]
    with SQClient(port=server.port, auto_ack=False, queue="jobs") as other:
        for message in islice(other.consume(MANY), MANY):
            if not keeps(message.id):
                message.ack()
    left = sorted((message.id for message in client.peek_messages(queue="jobs")), reverse=newest)
    assert len(left) == sum(map(keeps, range(1, MANY + 1)))

    async def both(link: Counting) -> tuple[list[list[int]], list[list[int]]]:
        return await walk(lambda: Pager(link, "jobs", READY, len(left), newest), 200)

    forth, back = run(server, both)
    assert [each for page in forth for each in page] == left
    assert [each for page in reversed(back) for each in page] == left
    assert all(len(page) == SIZE for page in forth[:-1])


def test_a_short_queue_is_shown_in_the_order_of_delivery(server: SQServer, client: SQClient) -> None:
    for number in range(130):
        client.enq("x", queue="jobs", priority=random.Random(number).randrange(3))
    for number in range(70):
        client.enq("x", queue="jobs", delay=3_600 - number)

    async def both(link: Counting) -> Any:
        ready = await walk(lambda: Pager(link, "jobs", READY, 130), 10)
        return ready, await walk(lambda: Pager(link, "jobs", pb.MESSAGE_STATE_DELAYED, 70), 10)

    (ready, back), (delayed, _) = run(server, both)
    assert [each for page in ready for each in page] == [m.id for m in client.peek_messages(queue="jobs")]
    assert [each for page in reversed(back) for each in page] == [m.id for m in client.peek_messages(queue="jobs")]
    assert [each for page in delayed for each in page] == list(range(200, 130, -1))
    assert client.counts(queue="jobs").delayed == len(client.peek_messages(queue="jobs", state=State.DELAYED))


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("several", [(0, 255), (3, 4, 9), tuple(range(0, 200, 15))], ids=str)
def test_every_message_of_several_priorities_is_on_one_page_both_ways(
    server: SQServer, client: SQClient, several: tuple[int, ...], newest: bool
) -> None:
    chance = random.Random(7)
    while client.cnt(queue="jobs") < 700:
        client.enq_many(["x"] * chance.choice([1, 5, 120]), queue="jobs", priority=chance.choice(several))
    known = client.peek_messages(queue="jobs")
    expected = [message.id for message in (sorted(known, key=lambda each: -each.id) if newest else known)]

    async def both(link: Counting) -> tuple[list[list[int]], list[list[int]]]:
        return await walk(lambda: Pager(link, "jobs", READY, len(known), newest), 60)

    forth, back = run(server, both)
    assert [each for page in forth for each in page] == expected
    assert [each for page in reversed(back) for each in page] == expected
    assert all(len(page) == SIZE for page in forth[:-1])


def test_the_newest_of_too_many_priorities_say_what_they_leave_out(server: SQServer, client: SQClient) -> None:
    for priority in range(MOST_LANES + 3):
        client.enq_many(["x"] * 30, queue="jobs", priority=priority)
    total = client.cnt(queue="jobs")
    newest = run(server, lambda link: Pager(link, "jobs", READY, total, newest=True).start())
    assert newest.note.endswith("To reach priority 2 and below, show the next first.")
    assert not run(server, lambda link: Pager(link, "jobs", READY, total).start()).note


def test_a_long_delayed_backlog_says_what_no_page_has(server: SQServer, client: SQClient) -> None:
    client.enq_many(["x"] * (SCANNED + 20), queue="jobs", delay=3_600)

    async def walked(link: Counting) -> tuple[Page, list[list[int]]]:
        def pager() -> Pager:
            return Pager(link, "jobs", pb.MESSAGE_STATE_DELAYED, SCANNED + 20)

        return await pager().start(), (await walk(pager, 30))[0]

    first, forth = run(server, walked)
    assert [each for page in forth for each in page] == list(range(1, SCANNED + 1))
    assert "no page has the others" in first.note


@pytest.mark.parametrize("newest", [False, True])
@pytest.mark.parametrize("several", [(0,), (0, 5)], ids=str)
def test_every_message_of_a_short_queue_of_large_ones_is_on_one_page_both_ways(
    server: SQServer, client: SQClient, several: tuple[int, ...], newest: bool
) -> None:
    large = b"x" * 1_500_000
    for number in range(18):
        client.enq(large if number % 3 else "small", queue="jobs", priority=several[number % 5 % len(several)])
    places = [(-message.priority, message.id) for message in client.peek_messages(queue="jobs")]
    order = sorted((each for _, each in places), reverse=True) if newest else [each for _, each in sorted(places)]

    async def both(link: Counting) -> tuple[list[list[int]], list[list[int]]]:
        return await walk(lambda: Pager(link, "jobs", READY, 18, newest), 20)

    forth, back = run(server, both)
    assert len(forth) > 1
    assert [each for page in forth for each in page] == order
    assert [each for page in reversed(back) for each in page] == order


def test_a_page_of_large_messages_ends_early_and_the_next_goes_on(server: SQServer, client: SQClient) -> None:
    for _ in range(14):
        client.enq(b"x" * (1 << 20), queue="jobs")

    async def walked(link: Counting) -> Any:
        forth = [await Pager(link, "jobs", READY, 5_000).start()]
        while forth[-1].has_next:
            forth.append(await Pager(link, "jobs", READY, 5_000).after(spot(forth[-1].messages[-1])))
        return [ids(page) for page in forth], ids(await Pager(link, "jobs", READY, 5_000).before(Spot(15, 0)))

    forth, back = run(server, walked)
    assert [each for page in forth for each in page] == list(range(1, 15))
    assert len(forth) == 2
    assert back[-1] == 14


@pytest.mark.parametrize("after", [True, False])
def test_a_page_asks_few_questions_however_long_the_queue(server: SQServer, client: SQClient, after: bool) -> None:
    for _ in range(3):
        client.enq_many([b"x"] * 20_000, queue="jobs")

    async def asked(link: Counting) -> int:
        await Pager(link, "jobs", READY, 60_000, newest=True).start()
        pager = Pager(link, "jobs", READY, 60_000)
        assert len(ids(await (pager.after(Spot(30_000, 0)) if after else pager.before(Spot(30_000, 0))))) == SIZE
        return link.questions

    assert run(server, asked) <= 6


def test_a_search_goes_on_through_several_priorities(server: SQServer, client: SQClient) -> None:
    for part in range(6):
        client.enq_many([b"hay"] * 4_999 + [b"needle"], queue="jobs", priority=part % 2)

    async def searched(link: Counting) -> Any:
        first = await search(link, "jobs", READY, Wanted("needle"))
        assert first.last is not None
        return first, await search(link, "jobs", READY, Wanted("needle"), first.last)

    first, second = run(server, searched)
    assert (first.looked_at, second.is_over) == (MOST_LOOKED_AT, True)
    found = [each.message.id for each in (*first.messages, *second.messages)]
    assert found == [10_000, 20_000, 30_000, 5_000, 15_000, 25_000]


def test_a_search_ends_and_goes_on(server: SQServer, client: SQClient) -> None:
    for part in range(5):
        client.enq_many([b"%d needle" % n if n % 2_000 == 0 else b"hay" for n in range(5_000)], queue="jobs")
        client.enq("x", queue="jobs", headers={"part": f"P{part}"})

    async def searched(link: Counting) -> Any:
        first = await search(link, "jobs", READY, Wanted("NEEDLE"))
        assert first.last is not None
        return first, await search(link, "jobs", READY, Wanted("NEEDLE"), first.last)

    first, second = run(server, searched)
    assert (first.looked_at, first.is_over, second.is_over) == (MOST_LOOKED_AT, False, True)
    assert len(first.messages) + len(second.messages) == 15
    by_header = run(server, lambda link: search(link, "jobs", READY, Wanted(header="part=p1")))
    assert [each.message.headers["part"] for each in by_header.messages] == ["P1"]
    plenty = run(server, lambda link: search(link, "jobs", READY, Wanted("hay")))
    assert (len(plenty.messages), plenty.is_over) == (MOST_FOUND, False)


def test_what_a_search_finds_among_delayed_messages_has_a_page(console: Console, client: SQClient) -> None:
    client.enq_many(["hay"] * 2_500, queue="jobs", delay=3_600)
    found = client.enq("needle", queue="jobs", delay=7_200)
    (path,) = re.findall(
        r'href="(/queues/jobs/messages/\d+[^"]*)"', console.ask("/queues/jobs?tab=delayed&text=needle").text
    )
    assert f"/{found}?" in path
    assert console.ask(path).status == 200
