"""Processes that are killed at an exact change of their data file, many of them in little time.

`CrashBox` starts one process with `disk.c` loaded into it, which has imported the engine and forks for each trial. Run
as a module this is that process.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from engines.desk import ack, enqueue, opened

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.message import Subscription
from stiqueue.rules.lease import Lease

TRIAL_SECONDS = 20.0
SMALL_BYTES = 4_500_000
"""What a file shrinks to: 1,000 unused pages are kept."""


class Outcome(NamedTuple):
    """How a trial ended."""

    killed: bool
    changes: int
    """How many changes it made, unless it was killed."""
    struck: str
    """What it was killed at: write, cut, sync, rename or unlink."""


class Story:
    """What a trial confirmed before its end, written to a file beside the data file as it happens."""

    def __init__(self, path: Path) -> None:
        """Know the story of the data file at `path`."""
        self._path = path.with_name("story")

    def tell(self, word: str, ids: range) -> None:
        """Write one line with one call of the system."""
        with self._path.open("ab", buffering=0) as file:
            file.write(f"{word} {ids.start} {ids.stop}\n".encode())

    def ids(self, word: str) -> set[int]:
        """Return all ids that something was told of."""
        lines = self._path.read_text().split("\n")[:-1] if self._path.exists() else []
        told = (line.split() for line in lines)
        return {number for said, begin, end in told if said == word for number in range(int(begin), int(end))}


def _environment(**more: str) -> dict[str, str]:
    tests = Path(__file__).resolve().parents[1]
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **more}


def begin(trial: str, path: Path, **environment: str) -> subprocess.Popen[bytes]:
    """Start a process of its own that does a trial on the data file at `path`, and return it."""
    command = [sys.executable, "-W", "ignore", "-m", "faults.crashing", trial, str(path)]
    return subprocess.Popen(command, env=_environment(**environment), stdin=subprocess.DEVNULL)


class CrashBox:
    """Runs trials; the library is the compiled `disk.c`."""

    def __init__(self, library: Path) -> None:
        """Start the process that forks for each trial."""
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "faults.crashing"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(LD_PRELOAD=str(library)),
            text=True,
            bufsize=1,
        )

    def run(self, trial: str, path: Path, kill_at: int = 0) -> Outcome:
        """Run one trial on the data file at `path`; kill it at a change, counted from 1; 0: not at all."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        note = path.with_name("note")
        note.unlink(missing_ok=True)
        print(json.dumps([trial, str(path), kill_at, str(note)]), file=self._process.stdin)
        code, changes = json.loads(self._process.stdout.readline())
        assert code in (0, -signal.SIGKILL), f"the trial {trial} ended with {code} instead of being killed"
        return Outcome(code != 0, changes, note.read_text().split()[1] if note.exists() else "")

    def __enter__(self) -> CrashBox:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.communicate(timeout=TRIAL_SECONDS)


# -- in the process that forks


def _start(path: Path) -> None:
    with opened(path):
        pass


def _accept(path: Path) -> None:
    with opened(path, accept_loss=True):
        pass


def _work(path: Path) -> None:
    """Enqueue and ack, each step confirmed before it is told; end with a clean stop."""
    story = Story(path)
    with opened(path) as engine:
        for step in range(8):
            receipt = enqueue(engine, *(b"%d.%d" % (step, n) * 50 for n in range(5)))
            story.tell("confirmed", range(receipt.first_id, receipt.first_id + receipt.count))
            if step % 2:
                _ack(engine, story, 4)


def _load(path: Path) -> None:
    """Enqueue and ack until the end; the story is one directory up, on another disk."""
    story = Story(path.parent)
    with opened(path, sync=os.environ.get("LOAD_SYNC") != "off") as engine:
        while True:
            for _ in range(5):
                receipt = enqueue(engine, *(b"x" * 100 for _ in range(8)))
                story.tell("confirmed", range(receipt.first_id, receipt.first_id + receipt.count))
            _ack(engine, story, 10)


def _shrink(path: Path) -> None:
    """Ack all that is there, and wait until the file was given back to the disk."""
    story = Story(path)
    with opened(path) as engine:
        while engine.counts_now(["default"])[0].ready:
            _ack(engine, story, 100)
        give_up = time.monotonic() + TRIAL_SECONDS / 2
        while path.stat().st_size > SMALL_BYTES:
            assert time.monotonic() < give_up, "the file keeps its size"
            time.sleep(0.002)


def _ack(engine: LocalEngine, story: Story, number: int) -> None:
    consumer = engine.subscribe(Subscription("default", prefetch=number, max_messages=number))
    leases: list[Lease] = []
    while len(leases) < number:
        leases += consumer.take_waiting() or []
    for lease in leases:
        story.tell("acking", range(lease.entry.id, lease.entry.id + 1))
    assert ack(engine, leases) == []
    for lease in leases:
        story.tell("acked", range(lease.entry.id, lease.entry.id + 1))


TRIALS: dict[str, Callable[[Path], None]] = {
    "start": _start,
    "accept": _accept,
    "work": _work,
    "load": _load,
    "shrink": _shrink,
}


def _orders() -> Iterator[tuple[str, Path, int, str]]:
    for line in sys.stdin:
        trial, path, kill_at, note = json.loads(line)
        yield trial, Path(path), kill_at, note


def _run(trial: str, path: Path, kill_at: int, note: str, answer: int) -> None:
    """Be the fork: do the trial and end."""
    disk = ctypes.CDLL(None)
    disk.disk_arm(os.fsencode(path), ctypes.c_long(kill_at), ctypes.c_long(0), os.fsencode(note))
    code = 1
    try:
        TRIALS[trial](path)
        os.write(answer, b"%d" % disk.disk_changes())
        code = 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    """Do what the command line says, or fork for each order of stdin, one after the other."""
    if sys.argv[1:]:
        TRIALS[sys.argv[1]](Path(sys.argv[2]))
    for order in _orders():
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            _run(*order, writer)
        os.close(writer)
        with os.fdopen(reader) as answer:
            changes = int(answer.read() or 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps([code, changes]), flush=True)


if __name__ == "__main__":
    main()
