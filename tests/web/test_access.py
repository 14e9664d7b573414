"""Sessions and their end, log-ins that are slowed down, and what is kept for how long."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.ports import free_port
from support.waiting import until

from stiqueue import LimitReached, SQClient, SQServer
from stiqueue.server.access.tokens import Grant
from stiqueue.web import actions, sessions
from stiqueue.web.link import Link, Rights
from stiqueue.web.options import WebOptions
from stiqueue.web.sessions import (
    IDLE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_SECONDS,
    MOST_WAITING,
    Place,
    Sayings,
    Sessions,
    Slowdown,
)
from stiqueue.web.watch import Watch
from web.console import Console

TOKENS = {
    "look": "peek",
    "put": "enq,peek",
    "take": "deq,peek",
    "work": "enq,deq,peek",
    "own": "admin",
    "some": "enq,deq,peek jobs.*",
}
"""Rights, and with a blank the queues they are for."""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SQServer]:
    """A server that asks for tokens."""
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    lines = [f"{token(name)} {rights}\n" for name, rights in TOKENS.items()]
    tokens.write_text("".join(lines) + f"{token('blind')} enq,deq\n")
    with SQServer(port=free_port(), tokens=str(tokens)) as server:
        yield server


def token(name: str) -> str:
    return f"{name}-{'t' * 16}"


@pytest.mark.parametrize(
    ("name", "rights"),
    [
        ("look", Rights(enq=False, deq=False, admin=False)),
        ("put", Rights(enq=True, deq=False, admin=False)),
        ("take", Rights(enq=False, deq=True, admin=False)),
        ("work", Rights(admin=False)),
        ("own", Rights()),
        ("some", Rights(admin=False)),
    ],
)
def test_a_token_tells_what_it_may(guarded: SQServer, name: str, rights: Rights) -> None:
    async def ask() -> Rights:
        link = Link(WebOptions(port=guarded.port), token(name))
        try:
            found = await link.rights()
            assert await link.counts() == []  # asking has enqueued nothing
            return found
        finally:
            await link.close()

    assert asyncio.run(ask()) == rights


def test_a_session_begins_with_a_cookie_and_ends(guarded: SQServer) -> None:
    with Console(guarded.port) as console:
        assert console.ask("/").headers["location"] == "/login"
        assert console.ask("/queues/jobs?tab=dead").headers["location"] == "/login?next=%2Fqueues%2Fjobs%3Ftab%3Ddead"
        for path in ("/live", "/queues/jobs/live", "/status"):
            assert console.ask(path).status == 401
        assert console.ask("/queues/jobs/enqueue", {"body": "x"}).status == 401
        entered = console.ask("/login?next=%2Fleases", {"token": token("look")})
        assert (entered.status, entered.headers["location"]) == (303, "/leases")
        cookie = entered.headers["set-cookie"]
        for attribute in ("HttpOnly", "SameSite=strict", "Path=/"):
            assert attribute in cookie
        assert "Secure" not in cookie
        assert token("look") not in cookie
        assert console.ask("/", cookie=entered.cookie).status == 200
        refused = console.ask("/queues/jobs/enqueue", {"body": "x"}, cookie=entered.cookie)
        assert (refused.status, "no right to enq" in refused.text) == (400, True)
        assert console.ask("/logout", {}, cookie=entered.cookie).headers["location"] == "/login"
        assert console.ask("/", cookie=entered.cookie).status == 303


def test_those_without_a_token_cost_the_server_nothing(guarded: SQServer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    with Console(guarded.port) as console:
        assert console.ask("/").status == 303
        guard = guarded._guard
        assert guard is not None
        find = guard.tokens.find

        def finding(given: str) -> Grant | None:
            asked.append(given)
            return find(given)

        monkeypatch.setattr(guard.tokens, "find", finding)
        for _ in range(10):
            assert console.ask("/").status == 303
        assert asked == []
        assert console.ask("/login", {"token": token("look")}).status == 303
        assert token("look") in asked


def test_a_token_that_may_not_look_does_not_come_in(guarded: SQServer) -> None:
    with Console(guarded.port) as console:
        answer = console.ask("/login", {"token": token("blind")})
        assert (answer.status, "it needs the right peek" in answer.text) == (403, True)
        assert console.ask("/login", {"token": "\u00e9" * 20}).status == 400
        assert console.ask("/login", {"token": " "}).status == 400


@pytest.mark.parametrize(
    "way", ["//evil.example.org", "https://evil.example.org", "/\\evil.example.org", "/login", "x"]
)
def test_the_log_in_leads_to_pages_of_ours_only(guarded: SQServer, way: str) -> None:
    with Console(guarded.port) as console:
        assert console.ask(f"/login?next={way}", {"token": token("look")}).headers["location"] == "/"


def test_behind_https_the_cookie_says_so(guarded: SQServer) -> None:
    with Console(guarded.port, web_origin="https://queues.example.org") as console:
        headers = {"host": "queues.example.org", "origin": "https://queues.example.org"}
        cookie = console.ask("/login", {"token": token("look")}, **headers).headers["set-cookie"]
        assert cookie.startswith("__Host-stiqueue=")
        assert "Secure" in cookie


def test_a_console_with_a_token_of_its_own_asks_nobody(guarded: SQServer) -> None:
    with Console(guarded.port, token=token("look")) as console:
        assert "Queues" in console.ask("/").text
        assert console.ask("/login").headers["location"] == "/"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


def place() -> Place:
    link = Link(WebOptions(), None)
    return Place(link, Watch("here", link.counts))


def test_sessions_end_by_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MOST_SESSIONS", 3)
    clock, here = Clock(), place()
    known = Sessions(clock)
    session = known.begin("t", here)
    clock.now += IDLE_SECONDS
    assert known.find(session.id) is session
    clock.now += IDLE_SECONDS + 1
    assert known.find(session.id) is None
    session = known.begin("t", here)
    for _ in range(int(LONGEST_SECONDS / IDLE_SECONDS)):
        clock.now += IDLE_SECONDS
        assert known.find(session.id) is session
    clock.now += 1
    assert known.find(session.id) is None
    many = [known.begin(str(number), here) for number in range(4)]
    assert [known.find(each.id) is each for each in many] == [False, True, True, True]
    assert known.uses(here)
    assert known.place_of("3") is here
    assert known.place_of("0") is None


def test_failures_slow_an_address_down_and_no_other() -> None:
    clock = Clock()
    slowdown = Slowdown(clock)
    pauses = []
    for _ in range(8):
        pauses.append(slowdown.pause("a"))
        slowdown.failed("a")
    assert pauses == [0, 0.5, 1, 2, 4, 8, 8, 8]
    assert slowdown.pause("b") == 0
    clock.now += 601
    assert slowdown.pause("a") == 0
    slowdown.failed("a")
    assert slowdown.pause("a") == 0.5
    slowdown.succeeded("a")
    assert slowdown.pause("a") == 0


def test_few_log_ins_of_an_address_wait_at_a_time() -> None:
    async def story() -> None:
        slowdown = Slowdown()
        for _ in range(9):
            slowdown.failed("a")
        assert slowdown.pause("a") == LONGEST_PAUSE_SECONDS
        waiting = [asyncio.ensure_future(slowdown.wait("a")) for _ in range(MOST_WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(LimitReached):
            await slowdown.wait("a")
        await slowdown.wait("b")
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    asyncio.run(story())


def test_a_saying_is_shown_once() -> None:
    sayings = Sayings()
    name = sayings.keep("done")
    assert sayings.take(name) == ("done", True)
    assert sayings.take(name) is None
    for _ in range(sessions.MOST_SAYINGS + 1):
        sayings.keep("x")
    assert len(sayings._texts) == sessions.MOST_SAYINGS


def test_a_long_action_ends_at_the_log_out(guarded: SQServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also while somebody else is logged in with the same token."""
    monkeypatch.setattr(actions, "PATIENCE_SECONDS", 0.0)
    with (
        Console(guarded.port) as console,
        SQClient(port=guarded.port, token=token("own"), queue="jobs") as client,
    ):
        client.enq_many(["x"] * 30_000, queue="jobs.dead")
        cookies = [console.ask("/login", {"token": token("own")}).cookie for _ in range(2)]
        assert console.ask("/queues/jobs/redrive", {}, cookie=cookies[0]).status == 303
        until(lambda: client.cnt() > 0)
        assert console.ask("/logout", {}, cookie=cookies[0]).status == 303
        until(lambda: client.counts(queue="jobs.dead").leased, 0)
        assert client.cnt(queue="jobs.dead") > 0
        assert console.ask("/", cookie=cookies[1]).status == 200
