"""Each run comes exactly once, though runners are killed, cut off and have wrong clocks."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from stiqueue import Schedule, SQClient, SQServer, Unavailable
from stiqueue.cron.times import shown
from stiqueue.testing import FakeClock
from tests.cli.conftest import COMMAND, ROOT
from tests.cron.conftest import BEGIN, ClockedServer
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE

DAY = 86_400.0
FILE = """
[[entry]]
name = "hourly"
cron = "17 * * * *"
queue = "jobs"
missed = "all"

[[entry]]
name = "nightly"
cron = "30 2 * * *"
timezone = "America/New_York"
queue = "jobs"
missed = "all"

[[entry]]
name = "workdays"
cron = "*/7 9 * * mon-fri"
timezone = "Europe/Berlin"
queue = "jobs"
missed = "all"

[[entry]]
name = "leap"
cron = "0 0 29 2 *"
queue = "jobs"
missed = "all"

[[entry]]
name = "interval"
every = "5h"
queue = "jobs"
missed = "all"
"""


class Killed(BaseException):
    """The process is killed at this moment."""


class Fated(SQClient):
    """A client in a process that may die or be cut off at each request."""

    def __init__(self, port: int, fate: Callable[[], None]) -> None:
        super().__init__(port=port)
        self._fate = fate

    def enq(self, *arguments: Any, **options: Any) -> int:
        self._fate()
        new_id = super().enq(*arguments, **options)
        self._fate()  # the server has it, and nobody knows
        return new_id

    def peek_messages(self, *arguments: Any, **options: Any) -> Any:
        self._fate()
        return super().peek_messages(*arguments, **options)


class Process:
    """A runner with a clock of its own, which is killed and started again."""

    def __init__(self, port: int, path: Path, clock: FakeClock, chance: random.Random) -> None:
        self._path, self._clock, self._chance = path, clock, chance
        self._client = Fated(port, self._fate)
        self._offset = chance.uniform(-60, 60)
        self._cut_off_until = 0.0
        self.others: list[Process] = []
        self.schedule: Schedule | None = None
        self.wakes_at = clock.wall()
        self.deaths = self.partings = 0

    def close(self) -> None:
        self._client.close()

    def now(self) -> float:
        return self._clock.wall() + self._offset

    @property
    def is_cut_off(self) -> bool:
        return self._clock.wall() < self._cut_off_until

    def _fate(self) -> None:
        if self.is_cut_off:
            raise Unavailable("cut off")
        drawn = self._chance.random()
        if drawn < 0.01:
            raise Killed
        # Never the last: if all are away between a run and its mark, the run may come twice (docs/cron.md).
        if drawn < 0.012 and not all(other.is_cut_off for other in self.others):
            self.partings += 1
            self._cut_off_until = self._clock.wall() + self._chance.uniform(60, 12 * 3_600)
            raise Unavailable("cut off")

    def act(self) -> None:
        """Do what is due, or die of it; say when to act again."""
        if self._chance.random() < 0.05:
            self._offset = self._chance.uniform(-60, 60)  # somebody sets the clock
        try:
            if self.schedule is None:
                self.schedule = Schedule(self._client, self._path, clock=self.now)
            wait = self.schedule.enq_due()
        except Killed:
            self.schedule = None
            self.deaths += 1
            self.wakes_at = self._clock.wall() + self._chance.uniform(1, 90)
            return
        nexts = [each.next_run - self.now() for each in self.schedule.status() if each.next_run is not None]
        if self.is_cut_off:
            wait = self._cut_off_until - self._clock.wall()
        elif wait and nexts:  # nothing happens before
            wait = max(0.0, min(nexts))
        self.wakes_at = self._clock.wall() + wait


def expected(schedule: Schedule, begin: float, end: float) -> Counter[str]:
    return Counter(
        f"{entry.name}@{shown(run)}" for entry in schedule.entries for run in entry.times.between(begin, end)
    )


@pytest.mark.slow
def test_each_run_comes_once_through_8_days(clocked: ClockedServer, clock: FakeClock, tmp_path: Path) -> None:
    simulate(clocked, clock, tmp_path, 8)


@pytest.mark.soak
@pytest.mark.timeout(1_800)
def test_each_run_comes_once_through_200_days(clocked: ClockedServer, clock: FakeClock, tmp_path: Path) -> None:
    simulate(clocked, clock, tmp_path, 200)


def simulate(server: ClockedServer, clock: FakeClock, directory: Path, days: int) -> None:
    """Let three runners go through `days`, killed at random requests, their clocks up to two minutes apart."""
    seed = random.randrange(1 << 32)
    print("seed", seed)
    chance = random.Random(seed)
    path = directory / "jobs.toml"
    path.write_text(FILE)
    came: Counter[str] = Counter()
    with ExitStack() as stack:
        consumer = stack.enter_context(SQClient(port=server.port, queue="jobs"))
        processes = [Process(server.port, path, clock, chance) for _ in range(3)]
        for process in processes:
            stack.callback(process.close)
            process.others = [other for other in processes if other is not process]
        begin = clock.wall()
        while clock.wall() < begin + days * DAY:
            process = min(processes, key=lambda process: process.wakes_at)
            clock.advance(max(0.0, process.wakes_at - clock.wall()))
            process.act()
            for message in consumer.consume(timeout=0, prefetch=100) if consumer.cnt() else ():
                came[f"{message.headers['stiqueue-cron-name']}@{message.headers['stiqueue-cron-time']}"] += 1
        schedule = Schedule(consumer, path)
    end = clock.wall()
    # Which runs of the first and last minutes come depends on the clocks.
    inner = expected(schedule, begin + 180, end - 180)
    outer = expected(schedule, begin - 180, end + 180)
    assert all(count == 1 for count in came.values()), [each for each in came.items() if each[1] > 1]
    assert not inner - came, "missing"
    assert not came - outer, "invented"
    assert sum(process.deaths for process in processes) > days
    assert sum(process.partings for process in processes) > days / 10
    assert begin == BEGIN


# -- real processes, real seconds -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_each_second_comes_once_for_20_seconds(tmp_path: Path) -> None:
    run_for(20, tmp_path)


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_each_second_comes_once_for_10_minutes(tmp_path: Path) -> None:
    run_for(600, tmp_path)


def run_for(seconds: float, directory: Path) -> None:
    """Let three processes go, one of which is killed every second or so and started again."""
    path = directory / "jobs.toml"
    path.write_text('[[entry]]\nname = "beat"\nevery = "1s"\nqueue = "jobs"\nmissed = "all"\n')
    chance = random.Random()
    with SQServer(port=free_port(), data=directory / "q.db") as server, SQClient(port=server.port) as client:
        command = [*COMMAND, "cron", str(path), "--port", str(server.port)]

        def start() -> subprocess.Popen[bytes]:
            return subprocess.Popen(command, env={"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)

        processes = [start() for _ in range(3)]
        seen: list[int] = []
        try:
            deadline = time.monotonic() + seconds
            kills, kill_at = 0, 0.0
            while time.monotonic() < deadline:
                message = client.deq(timeout=PATIENCE, queue="jobs")
                assert message is not None
                seen.append(int(message.headers["stiqueue-cron-time"][-3:-1]))
                if time.monotonic() > kill_at:
                    kills, kill_at = kills + 1, time.monotonic() + chance.uniform(0.5, 3.0)
                    victim = chance.randrange(3)
                    processes[victim].kill()
                    processes[victim].wait(PATIENCE)
                    processes[victim] = start()
        finally:
            for process in processes:
                process.kill()
                process.wait(PATIENCE)
    first = seen[0]
    assert sorted((each - first - place) % 60 for place, each in enumerate(seen)) == [0] * len(seen)
    assert len(seen) >= seconds / 2
    assert kills >= seconds / 6
