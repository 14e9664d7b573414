"""A data file that was damaged, cut, swapped or taken for another: faults 19 and 20.

tests/engines/test_damage.py has each kind of damage with what is said of it and what can be saved.
"""

from __future__ import annotations

import os
import random
import re
import signal
import sqlite3
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from engines.damage import ALL, DAMAGES, FRAME, body, content, make_killed
from engines.desk import ack, as_killed, drain, enqueue, opened, take

from stiqueue.engines.sqlite.damage.salvage import check, salvage
from stiqueue.engines.sqlite.damage.wal import scan
from stiqueue.engines.sqlite.schema import SCHEMA_VERSION
from stiqueue.errors import StoreError
from stiqueue.v1 import queue_pb2 as pb

from .disks import small_disk
from .processes import ServerProcess
from .run import Run

FLIPS = int(os.environ.get("FAULT_FLIPS", 60))
"""1,000 take two minutes."""


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a server that was killed."""
    return make_killed(tmp_path_factory.mktemp("killed") / "made")


def bodies_of(n: int) -> tuple[bytes, bytes]:
    """Return two bodies, some of them longer than a page of the file."""
    return b"%d" % n * 40, b"x" * (9_000 if n % 25 == 7 else 10)


BODIES = {body for n in range(100) for body in bodies_of(n)}


def rich(directory: Path) -> Path:
    """Make a file with everything that a message can have, half of it in the log; return it as a kill leaves it."""
    directory.mkdir()
    path = directory / "stiqueue.db"
    for begin in (0, 50):
        with opened(path) as engine:
            for n in range(begin, begin + 50):
                more = [{}, {"priority": n % 256}, {"headers": {"n": str(n)}}, {"ttl": 1e6}, {"request_id": f"r{n}"}]
                enqueue(engine, *bodies_of(n), queue=f"q{n % 3}", **more[n % 5])
            enqueue(engine, b"later", queue="q1", delay=1e6)
            ack(engine, take(engine, 10, "q2"))
            as_killed(path, directory / "killed.db")
    return directory / "killed.db"


def everything(path: Path) -> list[object]:
    """Return all that is in a file, read by an engine."""
    with opened(path) as engine:
        again = [engine._arrivals._recent.get(f"q{n % 3}", f"r{n}", engine._clock.monotonic()) for n in range(100)]
        counts = [count for count in engine.counts_now() if count.ready or count.delayed]
        leases = [lease for queue in ("q0", "q1", "q2") for lease in drain(engine, queue)]
        return [
            again,
            [(count.queue, count.ready, count.delayed, count.bytes) for count in counts],
            [
                (lease.entry.id, lease.body, lease.entry.attempt, replace(lease.entry.properties, expires_at=None))
                for lease in leases
            ],
        ]


@pytest.mark.timeout(600)
def test_19_one_bit_anywhere(tmp_path: Path) -> None:
    """60 times one random bit: everything comes as it was, or the file is refused as it is.

    With the mark beside the file this holds also for the last transaction, which SQLite drops when it is damaged.
    """
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    source = rich(tmp_path / "rich")
    whole = everything(as_killed(source, tmp_path / "whole.db"))
    refused, problems = 0, list[str]()
    for n in range(FLIPS):
        place = tmp_path / str(n)
        place.mkdir()
        path = as_killed(source, place / "stiqueue.db")
        part = Path(f"{path}{'-wal' if n % 2 else ''}")
        at, bit = chance.randrange(part.stat().st_size), 1 << chance.randrange(8)
        data = bytearray(part.read_bytes())
        data[at] ^= bit
        part.write_bytes(data)
        before = content(path)
        try:
            assert everything(path) == whole, f"bit {bit} of byte {at} of {part.name} has changed what is delivered"
        except StoreError as error:
            problems += [text for text in [str(error)] if "\n" in text or str(path) not in text]
            assert content(path) == before
            refused += 1
            with opened(path, accept_loss=True) as engine:
                saved = [lease.body for queue in ("q0", "q1", "q2") for lease in drain(engine, queue)]
            assert set(saved) <= BODIES  # perhaps also one whose ack was lost with its page
    print(f"{refused} of {FLIPS} were refused, the others made no difference")
    assert problems == []
    assert refused > FLIPS // 3


def foreign(path: Path) -> None:
    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE account (id, name)")
    db.close()


def newer(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[60:64] = struct.pack(">I", SCHEMA_VERSION + 1)
    path.write_bytes(data)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


KINDS: dict[str, Callable[[Path], None]] = {
    **{name: damage for name, (damage, _, _) in DAMAGES.items() if name != "an old backup"},
    "a file of another program": foreign,
    "a newer schema": newer,
    "a directory": directory,
}


def assert_refused(run: Run, path: Path) -> ServerProcess:
    """Start the server, which ends with 1 and one line that names the file, and changes nothing."""
    before = content(path)
    server = run.server("--data", str(path), start=False).start(ready=False)
    assert server.wait(20) == 1, server.log
    assert len(server.log.splitlines()) == 1, server.log
    assert server.log.startswith(f"stiqueue: {path}"), server.log
    assert content(path) == before | {f"{server.name}.log": server.log.encode()}
    return server


@pytest.mark.parametrize("name", KINDS)
def test_19_the_server_refuses(run: Run, killed: Path, name: str) -> None:
    path = as_killed(killed, run.directory / "stiqueue.db")
    KINDS[name](path)
    log = assert_refused(run, path).log
    if name in DAMAGES:
        assert "last good id: " in log
        assert "--accept-loss" in log


@pytest.mark.parametrize("name", ["a bit in the middle of the log", "the header of the log"])
def test_19_the_log_tells_of_its_damage_without_the_mark(run: Run, killed: Path, name: str) -> None:
    """The mark is not synced, so after a power cut it may be old; damage in the log is seen all the same."""
    path = as_killed(killed, run.directory / "stiqueue.db")
    Path(f"{path}-mark").unlink()
    DAMAGES[name][0](path)
    assert "confirmed ones follow it" in assert_refused(run, path).log


def test_19_the_server_accepts_the_loss(run: Run, killed: Path) -> None:
    """It says how many messages were lost, and keeps the damaged file."""
    path = as_killed(killed, run.directory / "stiqueue.db")
    DAMAGES["a bit of a message"][0](path)
    damaged = path.read_bytes()
    server = assert_refused(run, path)
    server.options.append("--accept-loss")
    server.start()
    assert run.counts().ready == len(ALL) - 1
    aside = next(each for each in run.directory.iterdir() if ".damaged-" in each.name and each.suffix[-4:] != "-wal")
    assert aside.read_bytes() == damaged
    assert f"{len(ALL) - 1} messages were saved, 1 is lost; the damaged file is {aside}" in server.log


def test_19_a_loss_that_is_not_known_is_not_called_none(run: Run) -> None:
    """The log is cut where a transaction ends: all that the file counts is there, and confirmed messages are missing.

    The refusal, `check`, `salvage` and a start that accepts the loss say so in the same words.
    """
    path = run.directory / "stiqueue.db"
    server = run.server("--data", str(path))
    for number in range(200):
        run.stub().Enq(pb.EnqRequest(bodies=[b"%d" % number]), timeout=10)
    run.inject.kill(server)
    log = Path(f"{path}-wal")
    os.truncate(log, 32 + scan(log).frames // 4 * FRAME)
    refusal = assert_refused(run, path)
    found = re.search(r"ends with transaction (\d+), but (\d+) were confirmed", refusal.log)
    assert found, refusal.log
    known, confirmed = int(found[1]), int(found[2])
    words = f"how many are lost is not known: the last {confirmed - known} confirmed transactions are missing"

    report = check(path)
    assert report.lines[-1] == f"{path}: {report.readable} messages can be read, {words}"
    assert report.readable < 200
    assert salvage(path, run.directory / "saved.db").loss.words == words
    refusal.options.append("--accept-loss")
    refusal.start()
    (shown,) = run.stub(refusal.target).Peek(pb.PeekRequest(), timeout=10)
    assert len(shown.messages) == report.readable
    assert f"{report.readable} messages were saved, {words}; the damaged file is " in refusal.log


def test_19_a_read_only_disk(run: Run, killed: Path) -> None:
    """One line, and nothing else: also root cannot write there."""
    with small_disk(run.directory, 16) as disk:
        path = as_killed(killed, disk / "stiqueue.db")
        os.system(f"mount -o remount,ro {disk}")
        server = run.server("--data", str(path), start=False).start(ready=False)
        assert server.wait(20) == 1
        assert server.log.count("\n") == 1, server.log
        assert server.log.startswith(f"stiqueue: {path}"), server.log
        assert "Read-only file system" in server.log


@pytest.mark.parametrize("with_log", [True, False])
def test_20_an_old_backup_is_refused(run: Run, with_log: bool) -> None:
    """The file is copied, 1,000 messages are confirmed, and the copy is put back: the mark beside it knows."""
    path = run.directory / "stiqueue.db"
    server = run.server("--data", str(path))
    run.fill(1_000)
    if not with_log:
        os.kill(server.pid, signal.SIGTERM)
        server.wait()
    old = {end: Path(f"{path}{end}").read_bytes() for end in ("", "-wal") if Path(f"{path}{end}").exists()}
    if not with_log:
        server.start()
    run.fill(1_000, name="later")
    run.inject.kill(server)
    for end in ("", "-wal"):
        Path(f"{path}{end}").unlink()
    for end, data in old.items():
        Path(f"{path}{end}").write_bytes(data)
    log = assert_refused(run, path).log
    assert "but 2 were confirmed: it is older, or was cut (last good id: 1000 of default)" in log


@pytest.mark.parametrize("k", [1, 100, 2_000, FRAME])
def test_18_a_torn_write(run: Run, k: int) -> None:
    """The last write before a kill reached the disk in part: its messages were not confirmed, and all others come."""
    path = run.directory / "stiqueue.db"
    run.server("--data", str(path))
    run.fill(50)
    run.inject.kill(run.servers[0])
    assert scan(Path(f"{path}-wal")).frames
    with opened(path) as engine:
        for n in range(50, 60):
            enqueue(engine, body(n))
        mark = Path(f"{path}-mark").read_bytes()
        enqueue(engine, b"not confirmed")
        torn = as_killed(path, run.directory / "torn.db")
    Path(f"{torn}-mark").write_bytes(mark)  # it is written after the log, and before anything is confirmed
    log = Path(f"{torn}-wal")
    os.truncate(log, log.stat().st_size - k)
    server = run.server("--data", str(torn))
    assert run.stub(server.target).Cnt(pb.CntRequest(), timeout=5).queues[0].ready == 60
    assert server.log.count("\n") == 1, server.log
