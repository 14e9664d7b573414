"""kill -9 at exact points: of ordinary work, of start and recovery, of giving space back, of accepting a loss.

A library counts what a process changes on the disk and kills it at one of these changes; a write at which it is killed
is torn. So points are not guessed but tried one after the other: some, evenly spread from a random first one, or with
FAULT_EVERY_POINT in the environment each. A kill says nothing about syncing: that is what test 14 is for.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engines.damage import ALL, DAMAGES, IN_ALL, accepted, as_killed, body, content, make_killed, refused
from engines.desk import drain, enqueue, opened

from .crashing import SMALL_BYTES, CrashBox, Outcome, Story
from .preloaded import compile_disk

EVERY_POINT = bool(os.environ.get("FAULT_EVERY_POINT"))
POINTS = 12
LARGE = 1_600
"""Messages of one page each."""


@pytest.fixture(scope="module")
def crash_box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashBox]:
    """A process that forks and crashes."""
    with CrashBox(compile_disk(tmp_path_factory.mktemp("disk"))) as box:
        yield box


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory in memory where there is one: a kill does not care whether a disk is behind a file."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a server that was killed."""
    return make_killed(tmp_path_factory.mktemp("killed") / "made")


def crash_everywhere(
    box: CrashBox,
    trial: str,
    source: Path | None,
    directory: Path,
    judge: Callable[[Path], None],
    number: int = POINTS,
) -> None:
    """Run a trial on copies of `source`, killed at one point each; `judge` each file that is left.

    All kinds of points must be among those that were tried.
    """
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")

    def tried(kill_at: int) -> Outcome:
        here = directory / f"{trial}-{kill_at}"
        here.mkdir()
        path = here / "stiqueue.db"
        if source is not None:
            as_killed(source, path)
        outcome = box.run(trial, path, kill_at)
        try:
            judge(path)
        except BaseException:
            print(f"{trial} was killed at point {kill_at}: {outcome.struck}")
            raise
        shutil.rmtree(here)
        return outcome

    points = tried(0).changes
    step = 1 if EVERY_POINT else max(1, points // number)
    first = random.Random(seed).randrange(step)
    struck = [tried(point) for point in range(1 + first, points + 1, step)]
    # What a timer brings moves a little from run to run, so the last points may not be reached.
    assert sum(outcome.killed for outcome in struck) >= len(struck) * 2 // 3
    print(f"{trial}: {points} points, killed at {len(struck)} of them: {[outcome.struck for outcome in struck]}")


def judge_work(path: Path) -> None:
    """Everything confirmed is there but what was acked, nothing acked is, and nothing is altered."""
    story = Story(path)
    confirmed, acking, acked = story.ids("confirmed"), story.ids("acking"), story.ids("acked")
    with opened(path) as engine:
        leases = drain(engine)
    ids = {lease.entry.id for lease in leases}
    assert confirmed - acking <= ids, "confirmed and lost"
    assert not ids & acked, "acked and delivered again"
    assert len(ids) == len(leases)
    for lease in leases:
        step, n = divmod(lease.entry.id - 1, 5)
        assert lease.body == b"%d.%d" % (step, n) * 50


def test_13_sigkill_at_any_change(crash_box: CrashBox, place: Path) -> None:
    """Also of the very first, when the file is made."""
    crash_everywhere(crash_box, "work", None, place, judge_work)


def judge_all(path: Path) -> None:
    with opened(path) as engine:
        assert [(lease.entry.id, lease.body) for lease in drain(engine)] == [
            (number, body(number)) for number in range(1, IN_ALL + 1)
        ]


def test_15_sigkill_during_start_and_checkpoint(crash_box: CrashBox, killed: Path, place: Path) -> None:
    """The log is long, and moves into the file at the start or at the end."""
    crash_everywhere(crash_box, "start", killed, place, judge_all)


def test_15_sigkill_again_and_again(crash_box: CrashBox, killed: Path, place: Path) -> None:
    """Each start is killed a little later than the one before, on what that one has left."""
    path = as_killed(killed, place / "stiqueue.db")
    kill_at = 1
    while crash_box.run("start", path, kill_at).killed:
        kill_at += 1
    judge_all(path)
    assert kill_at > 10


def test_15_sigkill_while_space_is_given_back(crash_box: CrashBox, place: Path) -> None:
    """Nothing acked comes back, nothing else is lost, and the next start gives the rest of the space back."""
    source = place / "source.db"
    with opened(source) as engine:
        enqueue(engine, *(b"x" * 3_000 for _ in range(LARGE)))

    def judge(path: Path) -> None:
        story = Story(path)
        acking, acked = story.ids("acking"), story.ids("acked")
        with opened(path) as engine:
            leases = drain(engine)
        ids = {lease.entry.id for lease in leases}
        assert not ids & acked
        assert set(range(1, LARGE + 1)) - acking <= ids
        assert all(lease.body == b"x" * 3_000 for lease in leases)

    assert source.stat().st_size > SMALL_BYTES
    crash_everywhere(crash_box, "shrink", source, place, judge, POINTS // 2)


@pytest.mark.parametrize("name", ["a bit in the middle of the log", "the first page is zero", "the file is gone"])
def test_a_loss_that_is_being_accepted_gets_no_larger(
    crash_box: CrashBox, killed: Path, place: Path, name: str
) -> None:
    """Killed in the middle, the start is repeated with --accept-loss, or without: not one message more is lost."""
    source = as_killed(killed, place / "source.db")
    DAMAGES[name][0](source)
    damaged = [data for data in (content(source).get(f"source.db{end}") for end in ("", "-wal")) if data]
    expected = accepted(as_killed(source, place / "expected.db"))
    assert DAMAGES[name][2](expected)

    def judge(path: Path) -> None:
        aside = [each.read_bytes() for each in path.parent.iterdir() if ".damaged-" in each.name]
        in_place = [content(path).get(f"stiqueue.db{end}") for end in ("", "-wal")]
        assert all(data in aside or data in in_place for data in damaged), "the damaged file is gone"
        if not path.with_name("stiqueue.db.accepted-loss").exists() and damaged[0] in in_place:
            refused(path)  # nothing has happened yet, and without the option nothing does
        assert accepted(path) == expected
        aside = [each.read_bytes() for each in path.parent.iterdir() if ".damaged-" in each.name]
        assert all(data in aside for data in damaged), "the damaged file is gone"

    crash_everywhere(crash_box, "accept", source, place, judge)
    assert expected <= ALL
