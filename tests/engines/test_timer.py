"""The thread that lets things fall due: it begins once, and nothing falls due after `close`."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from support.clock import FakeClock
from support.waiting import Call, until

from stiqueue.engines.local.change import LaneName
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.local.timer import Timer
from stiqueue.engines.opening import open_engine
from stiqueue.message import Batch
from stiqueue.server.delivery import Bell

from .desk import PATIENCE, enqueue


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of all threads that were started."""
    names: list[str] = []
    start = threading.Thread.start

    def note(thread: threading.Thread) -> None:
        names.append(thread.name)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", note)
    return names


def test_what_is_written_while_the_engine_closes_starts_no_timer(tmp_path: Path, started: list[str]) -> None:
    engine = open_engine(tmp_path / "queue.db")
    engine.start_now()
    busy: Future[None] = Future()
    journal = engine._log.journal
    journal.load(LaneName("", 0), 0, 0, lambda rows: busy.result(PATIENCE))
    answer = engine.submit(Batch("default", [b"a"], delay=1_000.0))
    closing = Call(engine.close_now)
    until(lambda: engine._queues.refusal is not None)
    busy.set_result(None)
    closing.result()
    assert isinstance(answer, Future)
    assert answer.result(PATIENCE).count == 1
    assert "stiqueue-timer" not in started


def test_nothing_falls_due_in_an_engine_that_is_closed(tmp_path: Path) -> None:
    clock = FakeClock()
    engine = open_engine(tmp_path / "queue.db", clock=clock)
    engine.start_now()
    enqueue(engine, b"a", ttl=1_000.0)
    engine.close_now()
    clock.advance(1_000.0)
    engine.tick()  # what a timer does that was on its way when the engine was closed
    (counts,) = engine.counts_now(["default"])
    assert counts.expired == 0


def test_close_waits_for_the_thread_and_no_alarm_comes_after_it(started: list[str]) -> None:
    engine = LocalEngine()
    engine.submit(Batch("default", [b"a", b"b"], ttl=3_660 * 86_400.0))
    assert started == ["stiqueue-timer"]
    engine.close_now()
    assert not [thread for thread in threading.enumerate() if thread.name == "stiqueue-timer"]


def test_one_thread_waits_for_the_earliest_of_all_alarms(started: list[str]) -> None:
    lock, clock, ticks = threading.Lock(), FakeClock(), threading.Semaphore(0)
    rung: list[str] = []

    def tick() -> None:
        with lock:
            rung.extend(timer.pop_due(clock.monotonic()))
        ticks.release()

    timer: Timer[str] = Timer(lock, clock, tick)
    with lock:
        timer.set("late", clock.monotonic() + 1e12, "late")
        timer.set("later", clock.monotonic() + 2e12, "later")
        timer.set("now", clock.monotonic(), "now")
    assert ticks.acquire(timeout=PATIENCE)
    with lock:
        assert rung == ["now"]
        timer.stop()
        timer.set("now", clock.monotonic(), "now")
    assert timer.join()
    assert (rung, started) == (["now"], ["stiqueue-timer"])


def test_a_bell_may_be_rung_when_its_loop_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def make() -> Bell:
        return Bell()

    loop = asyncio.new_event_loop()
    bell = loop.run_until_complete(make())
    loop.close()
    monkeypatch.setattr(loop, "is_closed", lambda: False)  # as it was a moment ago

    def closed(*arguments: object) -> None:
        raise RuntimeError("Event loop is closed")

    monkeypatch.setattr(loop, "call_soon_threadsafe", closed)
    bell.ring()
