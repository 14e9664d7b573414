"""Who holds a data file, and how far it had come."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue.engines.sqlite.claim import Claim, Mark, unclaimed
from stiqueue.engines.sqlite.damage.salvage import salvage
from stiqueue.engines.sqlite.journal import Journal
from stiqueue.errors import StoreError, StoreInUse, Unavailable

from .desk import as_killed, bodies, drain, enqueue, opened


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the data file is."""
    return tmp_path / "stiqueue.db"


def test_the_second_is_told_who_has_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At once: it tries a single time, and does not wait."""
    claim = Claim(path)
    tried: list[int] = []
    flock = fcntl.flock

    def recorded(file: int, kind: int) -> None:
        tried.append(kind)
        flock(file, kind)

    monkeypatch.setattr(fcntl, "flock", recorded)
    with pytest.raises(StoreInUse, match=rf"stiqueue.db: in use by process {os.getpid()}$"):
        Claim(path)
    assert tried == [fcntl.LOCK_EX | fcntl.LOCK_NB]
    claim.release()
    Claim(path).release()


def test_one_name_for_all_ways_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "name.db").symlink_to("real/stiqueue.db")
    monkeypatch.chdir(tmp_path)
    with opened(tmp_path / "real" / "stiqueue.db"):
        for way in ("link/stiqueue.db", "name.db", "real/../real/stiqueue.db", "./real/stiqueue.db"):
            with pytest.raises(StoreInUse), opened(Path(way)):
                pass
    with opened(Path("name.db")) as engine:
        assert engine._log.path == tmp_path / "real" / "stiqueue.db"


def test_a_lock_file_that_was_removed(path: Path) -> None:
    """SQLite's own lock, which `Store` takes for life, is behind ours."""
    with opened(path):
        Path(f"{path}-lock").unlink()
        with pytest.raises(StoreError, match="locked"), opened(path):
            pass


def test_opening_and_closing_the_file_beside_the_engine(path: Path) -> None:
    """It drops SQLite's lock, by the rules of POSIX; ours stays."""
    with opened(path):
        path.read_bytes()
        with pytest.raises(StoreInUse), opened(path):
            pass


def test_reading_keeps_servers_away(path: Path) -> None:
    with unclaimed(path):  # nobody has ever held it
        pass
    Claim(path).release()
    with unclaimed(path), unclaimed(path), pytest.raises(StoreInUse):
        Claim(path)
    claim = Claim(path)
    with pytest.raises(StoreInUse), unclaimed(path):
        pass
    claim.release()


def test_the_mark(path: Path) -> None:
    assert Mark.of(path) == 0
    mark = Mark(path)
    assert Mark.of(path) == 0
    for number in (1, 2**40, 7):
        mark.write(number)
        assert Mark.of(path) == number
    mark.close()
    Path(f"{path}-mark").write_bytes(struct.pack("<QI", 8, 1))
    assert Mark.of(path) == 0


def test_the_mark_is_exact(path: Path) -> None:
    """Each confirmed transaction is in it: also the last one before a kill cannot be lost unnoticed."""
    with opened(path) as engine:
        for number in range(1, 20):
            enqueue(engine, b"a")
            assert Mark.of(path) == number


CHILD = """
import os, sys, signal
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engines.desk import enqueue, opened
path = Path(sys.argv[1])
with opened(path) as engine:
    enqueue(engine, b"before")
    child = os.fork()
    if not child:
        {child}
    os.waitpid(child, 0)
    enqueue(engine, b"after")
    print("ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("child", ["sys.exit(0)", "engine.close_now(); sys.exit(0)", "os._exit(0)"])
def test_a_fork_does_no_harm(path: Path, child: str) -> None:
    """A fork ends, in whatever way: the file stays its parent's, and the parent's log stays in its place.

    By itself SQLite would take the fork's copy of its locks for real and remove the log, with what comes after.
    """
    program = CHILD.format(child=child)
    arguments = [sys.executable, "-W", "ignore", "-c", program, str(path), str(Path(__file__).parents[1])]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert "ready" in done.stdout
    with opened(path) as engine:
        assert bodies(drain(engine)) == [b"before", b"after"]


SLEEPER = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from engines.desk import enqueue, opened
from stiqueue.errors import Unavailable
with opened(Path(sys.argv[1])) as engine:
    enqueue(engine, b"before")
    if not os.fork():
        try:
            enqueue(engine, b"in the fork")
        except Unavailable as error:
            print(error.reason, os.getpid(), flush=True)
        sys.stdin.readline()
        os._exit(0)
    time.sleep(60)
"""


def test_a_fork_does_not_hold_the_file(path: Path) -> None:
    """A worker that was forked off outlives the server: the next server has the file at once."""
    arguments = [sys.executable, "-W", "ignore", "-c", SLEEPER, str(path), str(Path(__file__).parents[1])]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdin is not None
        reason, fork = parent.stdout.readline().split()
        assert reason == "FORKED"
        parent.kill()
        parent.wait(10)
        os.kill(int(fork), 0)  # it lives
        with opened(path) as engine:
            assert bodies(drain(engine)) == [b"before"]
        parent.stdin.close()


def test_the_journal_of_a_fork_says_so(path: Path) -> None:
    with opened(path) as engine:
        journal = engine._log.journal
        assert isinstance(journal, Journal)
        journal._claim.held = False
        with pytest.raises(Unavailable, match="not to its forks"):
            enqueue(engine, b"a")
        journal._claim.held = True


def test_a_new_process_starts_where_a_killed_one_was(path: Path, tmp_path: Path) -> None:
    with opened(path) as engine:
        enqueue(engine, b"a")
        copy = as_killed(path, tmp_path / "copy.db")
    with opened(copy) as engine:
        assert bodies(drain(engine)) == [b"a"]


def test_only_its_owner_reads_the_files(tmp_path: Path) -> None:
    """Whatever the umask is; those of another server, of a salvage and of a start with accept_loss are made alike."""
    path = tmp_path / "stiqueue.db"
    before = os.umask(0o022)
    try:
        with opened(path) as engine:
            enqueue(engine, b"a")
            assert modes(tmp_path) == dict.fromkeys(
                [path.name, *(f"{path.name}{end}" for end in ("-lock", "-mark", "-reserve", "-wal"))], 0o600
            )
        salvage(path, tmp_path / "saved.db")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(100))
        with opened(path, accept_loss=True):
            assert set(modes(tmp_path).values()) == {0o600}
    finally:
        os.umask(before)


def test_a_file_that_is_there_keeps_its_mode(path: Path) -> None:
    """An owner who lets a group read it has a reason."""
    with opened(path):
        pass
    path.chmod(0o640)
    with opened(path) as engine:
        enqueue(engine, b"a")
        assert path.stat().st_mode & 0o777 == 0o640


def modes(directory: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mode & 0o777 for file in sorted(directory.iterdir())}
