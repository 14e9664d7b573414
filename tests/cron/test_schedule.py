"""The runner: what it enqueues, what it makes up for, and what a changed file changes."""

from __future__ import annotations

import logging
import os
import threading
from itertools import islice
from pathlib import Path

import pytest

from stiqueue import AccessDenied, QueueFull, Schedule, SQClient, SQServer, Unavailable
from stiqueue.cron.times import shown
from stiqueue.message import Message, State
from stiqueue.testing import FakeClock
from tests.cron.conftest import BEGIN, ClockedServer
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, Call, until

HOUR = 3_600.0


def runs(client: SQClient, queue: str = "jobs") -> list[str]:
    """Take everything from a queue; return the times that the runs were planned for."""
    return [message.headers["stiqueue-cron-time"] for message in taken(client, queue)]


def taken(client: SQClient, queue: str = "jobs") -> list[Message]:
    return list(client.consume(timeout=0, queue=queue))


def hours(*numbers: int) -> list[str]:
    return [f"2026-01-01T{number:02}:00:00Z" for number in numbers]


def hourly(client: SQClient, clock: FakeClock, **table: object) -> Schedule:
    """Return a runner of a job that comes each hour, and has looked once."""
    schedule = Schedule(client, clock=clock.wall)
    schedule.add("job", cron="0 * * * *", queue="jobs", **table)
    schedule.enq_due()
    return schedule


def test_a_run_is_a_message_with_its_name_and_time(client: SQClient, clock: FakeClock) -> None:
    schedule = hourly(client, clock, body="do it", headers={"to": "ann"}, priority=3, key="ann", ttl=60)
    assert taken(client) == []
    clock.advance(HOUR)
    assert schedule.enq_due() == 1.0
    (peeked,) = client.peek_messages(queue="jobs")
    assert peeked.expire_time_ms == (BEGIN + HOUR + 60) * 1_000
    (message,) = taken(client)
    assert (message, message.priority, message.key) == (b"do it", 3, "ann")
    assert message.headers == {
        "to": "ann",
        "stiqueue-cron-name": "job",
        "stiqueue-cron-time": "2026-01-01T01:00:00Z",
    }
    schedule.enq_due()
    assert taken(client) == []


def test_several_runners_enqueue_a_run_once(client: SQClient, clock: FakeClock) -> None:
    schedules = [hourly(client, clock) for _ in range(3)]
    for _ in range(3):
        clock.advance(HOUR)
        for schedule in schedules:
            schedule.enq_due()
    assert runs(client) == hours(1, 2, 3)
    assert [schedule.status()[0].runs for schedule in schedules] == [3, 3, 3]


@pytest.mark.parametrize(
    ("missed", "late", "expected"),
    [
        ("none", 0, [5]),
        ("none", 59, [5]),
        ("none", 61, []),
        ("one", 1_800, [5]),
        ("all", 1_800, [1, 2, 3, 4, 5]),
    ],
)
def test_missed_runs_are_made_up_for_as_the_job_says(
    client: SQClient, clock: FakeClock, missed: str, late: float, expected: list[int]
) -> None:
    hourly(client, clock, missed=missed)
    client.purge(queue="jobs")  # the run of this moment
    clock.advance(5 * HOUR + late)
    hourly(client, clock, missed=missed)  # a new process
    assert runs(client) == hours(*expected)


@pytest.mark.parametrize("is_denied", [False, True])
@pytest.mark.parametrize("missed", ["none", "one"])
def test_what_is_seen_for_the_first_time_has_missed_nothing(
    clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, missed: str, is_denied: bool
) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text(f"a-token-for-the-runner enq,deq,peek {'jobs' if is_denied else '*'}\n")
    tokens.chmod(0o600)
    with (
        SQServer(port=0, tokens=str(tokens)) as server,
        SQClient(port=server.port, token="a-token-for-the-runner") as client,
    ):
        schedule = Schedule(client, clock=clock.wall)
        schedule.add("beat", every="1s", queue="jobs", missed=missed)
        schedule.enq_due()
        assert len(taken(client)) <= 1
        assert schedule.status()[0].left_out == 0
        assert not [each for each in caplog.messages if "missed" in each]


@pytest.mark.parametrize(("missed", "expected"), [("none", []), ("one", [5]), ("all", [1, 2, 3, 4, 5])])
def test_a_runner_that_lives_on_makes_up_for_the_same(
    client: SQClient, clock: FakeClock, missed: str, expected: list[int]
) -> None:
    schedule = hourly(client, clock, missed=missed)
    client.purge(queue="jobs")  # the run of this moment
    clock.advance(5 * HOUR + 1_800)
    schedule.enq_due()
    assert runs(client) == hours(*expected)
    assert schedule.status()[0].left_out == 5 - len(expected)


def test_what_is_older_than_within_is_not_made_up_for(client: SQClient, clock: FakeClock) -> None:
    hourly(client, clock, missed="all", within="2h")
    clock.advance(5 * HOUR + 1)
    hourly(client, clock, missed="all", within="2h")
    assert runs(client) == hours(4, 5)


def test_a_job_that_is_new_has_missed_nothing(client: SQClient, clock: FakeClock) -> None:
    clock.advance(HOUR + 1)
    hourly(client, clock, missed="all")
    assert runs(client) == []


def test_a_job_with_other_times_has_missed_nothing(client: SQClient, clock: FakeClock) -> None:
    schedule = hourly(client, clock, missed="all")
    clock.advance(HOUR)
    schedule.enq_due()
    clock.advance(10 * HOUR + 1)
    schedule.add("job", cron="*/2 * * * *", queue="jobs", missed="all")
    schedule.enq_due()
    assert runs(client) == hours(1)
    again = Schedule(client, clock=clock.wall)
    again.add("job", cron="*/5 * * * *", queue="jobs", missed="all")
    again.enq_due()
    assert runs(client) == []


def test_a_run_that_others_made_up_for_does_not_come_again(client: SQClient, clock: FakeClock) -> None:
    """A runner that was cut off asks what has run before it makes up for anything: request ids are forgotten."""
    one, other = hourly(client, clock, missed="all"), hourly(client, clock, missed="all")
    for _ in range(3):
        clock.advance(HOUR)
        one.enq_due()
    clock.advance(1_800)
    other.enq_due()
    assert runs(client) == hours(1, 2, 3)


def test_a_run_that_comes_twice_after_all_died_before_its_mark(client: SQClient, clock: FakeClock) -> None:
    """The limit of what is promised, as docs/cron.md says it."""
    schedule = hourly(client, clock, missed="all")
    clock.advance(HOUR)
    client.enq("", queue="jobs", request_id="job@2026-01-01T01:00:00Z", headers={"stiqueue-cron-time": "first"})
    del schedule  # dead before it could write the mark
    clock.advance(200)
    hourly(client, clock, missed="all")  # in time: the server remembers
    assert runs(client) == ["first"]
    clock.advance(HOUR - 200)
    client.enq("", queue="jobs", request_id="job@2026-01-01T02:00:00Z", headers={"stiqueue-cron-time": "first"})
    clock.advance(1_000)
    hourly(client, clock, missed="all")  # too late
    assert runs(client) == ["first", *hours(2)]


def test_jitter_spreads_runs_and_is_the_same_for_all(client: SQClient, clock: FakeClock) -> None:
    schedules = [hourly(client, clock, jitter="10m") for _ in range(2)]
    delays = []
    for number in range(1, 21):
        clock.advance(HOUR)
        for schedule in schedules:
            schedule.enq_due()
        ready = [message.ready_time_ms for message in client.peek_messages(state=State.DELAYED, queue="jobs")]
        assert len(ready) == number
        delays.append(max(ready) / 1_000 - clock.wall())
    assert all(0 <= delay <= 600 for delay in delays)
    assert max(delays) - min(delays) > 200


def test_a_clock_that_is_set_back_repeats_nothing(client: SQClient, clock: FakeClock) -> None:
    schedule = hourly(client, clock, missed="all")
    clock.advance(HOUR + 60)
    schedule.enq_due()
    clock.jump(-120)
    schedule.enq_due()
    clock.advance(240)
    schedule.enq_due()
    assert runs(client) == hours(1)


def test_a_clock_that_was_an_hour_ahead_loses_no_run(
    client: SQClient, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    schedule = hourly(client, clock, missed="all")
    clock.jump(3 * HOUR)
    schedule.enq_due()
    clock.jump(-3 * HOUR)
    clock.advance(600)
    assert runs(client) == hours(1, 2, 3)  # by its clock
    hourly(client, clock, missed="all")  # a mark of the future does not count
    schedule.enq_due()
    assert "set back by more than 5 minutes" in caplog.text
    clock.advance(3_000)
    schedule.enq_due()
    assert runs(client) == hours(1)


@pytest.mark.slow
def test_marks_are_joined_and_vanish(clocked: ClockedServer, client: SQClient, clock: FakeClock) -> None:
    schedules = [hourly(client, clock, missed="all") for _ in range(2)]
    for _ in range(400):
        clock.advance(HOUR)
        for schedule in schedules:
            schedule.enq_due()
        assert client.counts(queue="stiqueue-cron").ready < 100
    assert len(runs(client)) == 400
    clock.advance(1_800)
    hourly(client, clock, missed="all")
    assert runs(client) == []
    clock.advance(4 * 86_400)
    clocked.engine.tick()  # type: ignore[attr-defined]
    assert client.cnt(queue="stiqueue-cron") == 0


def test_another_message_among_the_marks_does_no_harm(client: SQClient, clock: FakeClock) -> None:
    for body in ("{", "[1]", '[{"name": 1}]', '"text"', b"\xff", "[" * 100_000):
        client.enq(body, queue="stiqueue-cron")
    schedule = hourly(client, clock, missed="all")
    for _ in range(60):
        clock.advance(HOUR)
        schedule.enq_due()
    assert len(runs(client)) == 60
    assert client.cnt(queue="stiqueue-cron") < 60


def test_a_queue_that_is_full_holds_up_its_own_job(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    with SQServer(port=free_port(), max_messages=1) as server, SQClient(port=server.port) as client:
        schedule = Schedule(client, clock=clock.wall)
        schedule.add("job", cron="0 * * * *", queue="jobs", missed="none")
        schedule.add("other", cron="1 * * * *", queue="others", missed="none")
        client.enq("in the way", queue="jobs")
        schedule.enq_due()
        clock.advance(HOUR)
        assert 0 < schedule.enq_due() <= 1.0
        assert "job: queue 'jobs' has 1 messages" in caplog.text
        clock.advance(60)
        schedule.enq_due()
        assert len(taken(client, "others")) == 1
        client.purge(queue="jobs")
        until(lambda: (schedule.enq_due(), client.cnt(queue="jobs"))[1], 1)


def test_a_run_that_no_server_takes_is_told_and_left(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    with SQServer(port=free_port(), buff_size=65_536) as server, SQClient(port=server.port) as client:
        schedule = hourly(client, clock, body="x" * 60_000)
        clock.advance(HOUR)
        schedule.enq_due()
        assert "job at 2026-01-01T01:00:00Z is not enqueued" in caplog.text
        assert schedule.status()[0].failures == 1


class NoMarks(SQClient):
    """A client whose token has no right to the queue of marks."""

    def peek_messages(self, *arguments: object, **options: object) -> list:  # type: ignore[override, type-arg]
        raise AccessDenied("not for you")


def test_without_a_right_to_the_marks_runs_come_and_that_is_said(
    clocked: ClockedServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    with NoMarks(port=clocked.port) as client:
        schedule = hourly(client, clock)
        assert "no marks in queue stiqueue-cron" in caplog.text
        client.purge(queue="jobs")  # the run of this moment
        clock.advance(HOUR + 30)
        schedule.enq_due()
        hourly(client, clock)  # a new process knows of the last minute only
        assert runs(client) == hours(1)


def test_a_server_that_is_away_is_waited_for(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    port = free_port()
    with SQClient(port=port, timeout=0.2) as client:
        schedules = {}
        for missed in ("none", "one", "all"):
            schedules[missed] = Schedule(client, clock=clock.wall)
            schedules[missed].add(missed, cron="0 * * * *", queue=missed, missed=missed)
        with SQServer(port=port):
            for schedule in schedules.values():
                until(lambda each=schedule: (each.enq_due(), each.status()[0].next_run)[1], BEGIN + HOUR)
        clock.advance(3 * HOUR + 300)
        for schedule in schedules.values():
            assert schedule.enq_due() == 1.0
        assert "waiting for the server" in caplog.text
        with SQServer(port=port):
            for schedule in schedules.values():
                until(lambda each=schedule: (each.enq_due(), each.status()[0].next_run)[1], BEGIN + 4 * HOUR)
            assert [runs(client, missed) for missed in schedules] == [[], hours(3), hours(1, 2, 3)]


def test_run_goes_on_until_it_is_stopped(server: SQServer) -> None:
    with SQClient(port=server.port) as client:
        schedule = Schedule(client)
        schedule.add("beat", every=1, queue="jobs", missed="all")
        running = Call(schedule.run)
        seen = [client.deq(PATIENCE, queue="jobs") for _ in range(3)]
        schedule.stop()
        running.result()
        assert threading.active_count()
        times = [message.headers["stiqueue-cron-time"] for message in seen if message is not None]
        assert len(set(times)) == 3


def test_the_next_runs_of_all_jobs_in_order(client: SQClient, clock: FakeClock) -> None:
    schedule = Schedule(client, clock=clock.wall)
    schedule.add("hour", cron="0 * * * *")
    schedule.add("half", every="30m")
    found = [(shown(run)[11:16], entry.name) for run, entry in islice(schedule.upcoming(), 4)]
    assert found == [("00:30", "half"), ("01:00", "hour"), ("01:00", "half"), ("01:30", "half")]


# -- the file ---------------------------------------------------------------------------------------------------------


def write(path: Path, *tables: str) -> None:
    """Write a file as a person's editor does: another one, put in its place."""
    new = path.with_suffix(".new")
    new.write_text("".join(f"[[entry]]\nqueue = 'jobs'\n{table}\n" for table in tables))
    os.replace(new, path)


def test_a_changed_file_is_read_again(
    client: SQClient, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "jobs.toml"
    write(path, "name = 'a'\ncron = '0 * * * *'\nbody = 'one'")
    schedule = Schedule(client, path, clock=clock.wall)
    schedule.enq_due()
    clock.advance(1_800)
    write(path, "name = 'a'\ncron = '0 * * * *'\nbody = 'two'", "name = 'b'\ncron = '0 * * * *'\nbody = 'three'")
    schedule.enq_due()
    assert f"read {path}: 2 entries" in caplog.text
    clock.advance(1_800)
    schedule.enq_due()
    assert sorted(taken(client)) == [b"three", b"two"]


def test_a_changed_file_changes_nothing_that_the_program_added(
    client: SQClient, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "jobs.toml"
    write(path, "name = 'a'\ncron = '0 * * * *'", "name = 'b'\ncron = '0 * * * *'")
    schedule = Schedule(client, path, clock=clock.wall)
    schedule.add("b", every="2h")
    schedule.add("c", every="1h")
    assert sorted((entry.name, entry.times.text) for entry in schedule.entries)[1:] == [
        ("b", "every 7200 s"),
        ("c", "every 3600 s"),
    ]
    write(path, "name = 'd'\ncron = '0 * * * *'", "name = 'b'\ncron = '0 * * * *'")
    schedule.enq_due()
    assert sorted((entry.name, entry.times.text) for entry in schedule.entries)[:2] == [
        ("b", "every 7200 s"),
        ("c", "every 3600 s"),
    ]
    assert {entry.name for entry in schedule.entries} == {"b", "c", "d"}


@pytest.mark.parametrize("how", ["mistake", "gone"])
def test_a_file_with_a_mistake_changes_nothing(
    client: SQClient, clock: FakeClock, tmp_path: Path, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    path = tmp_path / "jobs.toml"
    good = "name = 'a'\ncron = '0 * * * *'"
    write(path, good)
    schedule = Schedule(client, path, clock=clock.wall)
    schedule.enq_due()
    if how == "gone":
        path.unlink()
    else:
        write(path, "name = 'b'\nevery = 1", "name = 'a'\ncron = '0 * * *'")
    for _ in range(2):
        clock.advance(HOUR)
        schedule.enq_due()
    assert caplog.text.count("nothing was changed") == 1
    assert schedule.has_mistakes
    assert runs(client) == hours(1, 2)
    write(path, good)
    schedule.enq_due()
    assert not schedule.has_mistakes


def test_a_request_that_fails_is_repeated_under_its_name(
    clocked: ClockedServer, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whether the server has a run whose answer was lost is unknown, so it is asked for again."""
    lost = [Unavailable("lost"), QueueFull("full")]

    class Losing(SQClient):
        def enq(self, *arguments: object, **options: object) -> int:  # type: ignore[override]
            new_id = super().enq(*arguments, **options)  # type: ignore[arg-type]
            if options["queue"] == "jobs" and lost:
                raise lost.pop()
            return new_id

    with Losing(port=clocked.port) as client:
        schedule = hourly(client, clock)
        clock.advance(HOUR)
        until(lambda: (schedule.enq_due(), schedule.status()[0].runs)[1], 1)
        assert runs(client) == hours(1)
        assert schedule.status()[0].failures == 2
