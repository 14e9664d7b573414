"""The wall clock is set while delays, leases and request ids are open, and before a restart: fault 27."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from engines.desk import ack, as_killed, bodies, enqueue, opened, take
from support.clock import FakeClock
from support.services import missing

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Subscription
from stiqueue.v1 import queue_pb2 as pb

from .holding import Holder
from .processes import wait_until
from .run import Run

HOUR = 3_600.0
WALL = 1_700_000_000.0
JUMPS = {"an hour on": HOUR, "an hour back": -HOUR, "to 1970": -WALL}
SLACK_SECONDS = 4.0
"""What a busy machine may add where time really passes; a jump that counted would add an hour, or take it away."""
NEARLY = 59.9
"""100 ms before a minute is over: nothing may happen earlier."""


def ready(engine: LocalEngine, queue: str) -> int:
    return sum(each.ready for each in engine.counts_now([queue]))


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_27_a_clock_that_is_set_while_the_server_runs(tmp_path: Path, jump: float) -> None:
    """With a data file: what takes a minute takes a minute; ids and order go on."""
    clock = FakeClock(wall=WALL)
    with opened(tmp_path / "queue.db", clock=clock) as engine:
        enqueue(engine, b"delayed", queue="delayed", delay=60.0)
        enqueue(engine, b"mortal", queue="mortal", ttl=60.0)
        enqueue(engine, b"a", b"b", queue="leased")
        leased = engine.subscribe(Subscription("leased", prefetch=1, ack_timeout=60.0))
        (lease,) = leased.take_waiting() or []
        first = enqueue(engine, b"once", queue="once", request_id="r")
        clock.jump(jump)

        later = enqueue(engine, b"c", queue="leased")
        assert later.first_id == 3
        _pass(engine, clock, NEARLY)
        assert ready(engine, "delayed") == 0
        assert ready(engine, "mortal") == 1
        assert engine.counts_now(["leased"])[0].leased == 1
        _pass(engine, clock, 0.2)
        assert ready(engine, "delayed") == 1
        assert ready(engine, "mortal") == 0
        assert ack(engine, [lease]) == [lease.lease_id]
        _pass(engine, clock, 5 * 60.0 - 61.0)
        again = enqueue(engine, b"once", queue="once", request_id="r")
        assert (again.duplicate, again.first_id) == (True, first.first_id)
        leased.close()
        assert bodies(take(engine, 3, "leased")) == [b"a", b"b", b"c"]


def _pass(engine: LocalEngine, clock: FakeClock, seconds: float) -> None:
    clock.advance(seconds)
    engine.tick()


@pytest.mark.parametrize("jump", JUMPS.values(), ids=JUMPS.keys())
def test_27_a_clock_that_is_set_before_a_restart(tmp_path: Path, jump: float) -> None:
    """The data file keeps delays by the wall clock: they end when it says so. Ids, order and attempts do not ask it."""
    clock = FakeClock(wall=WALL)
    with opened(tmp_path / "queue.db", clock=clock) as engine:
        enqueue(engine, b"a", b"b", b"c")
        leases = take(engine, 1)
        enqueue(engine, b"delayed", queue="delayed", delay=60.0)
        enqueue(engine, b"mortal", queue="mortal", ttl=60.0)
        killed = as_killed(tmp_path / "queue.db", tmp_path / "killed.db")
    assert bodies(leases) == [b"a"]

    clock = FakeClock(monotonic=5.0, wall=WALL + jump)
    with opened(killed, clock=clock) as engine:
        assert enqueue(engine, b"d").first_id == 4
        assert bodies(take(engine, 4)) == [b"a", b"b", b"c", b"d"]
        _pass(engine, clock, max(0.0, NEARLY - jump))
        assert (ready(engine, "delayed"), ready(engine, "mortal")) == ((1, 0) if jump > 0 else (0, 1))
        _pass(engine, clock, 0.2)
        assert (ready(engine, "delayed"), ready(engine, "mortal")) == (1, 0)
        assert bodies(take(engine, 1, "delayed")) == [b"delayed"]


def faketime() -> str:
    """Return the library that lies to a process about the time."""
    found = next(Path("/usr/lib").glob("**/faketime/libfaketimeMT.so.1"), None) or missing("libfaketime")
    return str(found)


@pytest.mark.soak
def test_27_the_clock_of_a_server_is_set(run: Run, tmp_path: Path) -> None:
    """A server whose wall clock is set an hour on and two back: leases and delays of 2 s take 2 s, each time."""
    offset = tmp_path / "offset"
    offset.write_text("+0")
    lies = {
        "LD_PRELOAD": faketime(),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    run.server(environment={**lies, "STIQUEUE_DATA": str(tmp_path / "stiqueue.db")})
    stub = run.stub()
    for number, seconds in enumerate([0, 3_600, -3_600, 0]):
        queue, later = f"leased{number}", f"delayed{number}"
        leased = time.monotonic()
        run.fill(1, name=queue, queue=queue)
        with Holder(run, f"stuck{number}", queue=queue, ack_timeout=2) as stuck:
            stuck.wait_holding(1)
            request = pb.EnqRequest(queue=later, bodies=[b"later"])
            request.delay.seconds = 2
            delayed = time.monotonic()
            stub.Enq(request, timeout=10)
            offset.write_text(f"{seconds:+d}")
            sent = time.time()
            run.fill(1, name=f"time{number}", queue="times")
            with Holder(run, f"other{number}", queue=queue) as other:
                other.wait_holding(1)
                took = other.times[0] - leased
                other.ack()
        wait_until(lambda later=later: run.counts(later).ready == 1, 60, later)  # type: ignore[misc]
        delay = time.monotonic() - delayed
        print(f"{seconds:+d} s: lease {took:.3f} s, delay {delay:.3f} s")
        assert 2.0 <= took <= 2.0 + SLACK_SECONDS
        assert 2.0 <= delay <= 2.0 + SLACK_SECONDS
        peeked = next(iter(stub.Peek(pb.PeekRequest(queue="times", after_id=number), timeout=10))).messages[0]
        assert abs(peeked.message.enqueue_time_ms / 1000 - sent - seconds) < 5, "the clock was not set"
