"""Keys while workers and the server are killed: in order, one at a time, none lost."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from stiqueue import SQClient

from .key_checker import Noted, check
from .processes import ServerProcess, environment, wait_until

KEYS = 1_000
PROCESSES, THREADS = 10, 5
DRAIN_SECONDS = 120.0


class Crew:
    """Processes of workers, killed and replaced."""

    def __init__(self, directory: Path, port: int) -> None:
        """Start nothing."""
        self._path = directory / "noted"
        self._path.touch()
        self._port = port
        self._names = map("w{}".format, itertools.count())
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.events: list[Noted] = []

    def start(self) -> None:
        """Start one more process."""
        name = next(self._names)
        command = [sys.executable, "-m", "faults.keyed", str(self._port), name, str(self._path), str(THREADS)]
        paths = [str(Path(__file__).parents[1]), environment()["PYTHONPATH"]]
        self._processes[name] = subprocess.Popen(command, env=environment({"PYTHONPATH": os.pathsep.join(paths)}))

    def kill(self, name: str) -> None:
        """Kill a process."""
        self.events.append(Noted(time.monotonic(), "killed", name))
        process = self._processes.pop(name)
        process.kill()
        process.wait()

    @property
    def names(self) -> list[str]:
        return list(self._processes)

    def noted(self) -> list[Noted]:
        """Return all events."""
        lines = (line.split() for line in self._path.read_text().splitlines())
        return self.events + [Noted(float(at), what, who, key, int(number)) for at, what, who, key, number in lines]


@contextmanager
def crew(directory: Path, port: int) -> Iterator[Crew]:
    """Have workers for a while."""
    made = Crew(directory, port)
    try:
        for _ in range(PROCESSES):
            made.start()
        yield made
    finally:
        for name in made.names:
            made.kill(name)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", [8.0, pytest.param(300.0, marks=pytest.mark.soak)])
def test_54_keys_are_in_order_and_one_at_a_time_whoever_is_killed(tmp_path: Path, seconds: float) -> None:
    seed = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    server = ServerProcess(tmp_path, ["--data", str(tmp_path / "queue.db")]).start()
    sent = {f"k{number}": 0 for number in range(KEYS)}
    kills = 0
    try:
        with crew(tmp_path, server.port) as workers, SQClient(port=server.port, timeout=60.0) as client:

            def enqueue(keys: Iterable[str]) -> None:
                for key in keys:
                    client.enq_soon(f"{key} {sent[key]}", key=key)
                    sent[key] += 1
                client.flush()

            for _ in range(3):
                enqueue(sent)
            wait_until(lambda: len(workers.noted()) > KEYS, DRAIN_SECONDS, "the workers work")
            end = time.monotonic() + seconds
            next_worker, next_server = time.monotonic() + 1.0, time.monotonic() + 3.0
            while (now := time.monotonic()) < end:
                # Those of a key that follow each other travel together, and share a row of the data file.
                enqueue(key for key in chance.choices(list(sent), k=25) for _ in range(chance.choice((1, 4))))
                if now >= next_worker:
                    workers.kill(chance.choice(workers.names))
                    workers.start()
                    kills += 1
                    next_worker = now + chance.uniform(1.0, 3.0)
                if now >= next_server:
                    server.end()
                    workers.events.append(Noted(time.monotonic(), "started"))
                    server.start()
                    kills += 1
                    next_server = now + chance.uniform(3.0, 8.0)

            def is_drained() -> bool:
                counts = client.counts()
                return counts.ready + counts.leased + counts.delayed == 0

            wait_until(is_drained, DRAIN_SECONDS, "all is done", every=0.1)
        events = workers.noted()
    finally:
        server.end()
    assert kills > 1
    assert len([each for each in events if each.what == "acked"]) > sum(sent.values()) / 2
    print(f"{sum(sent.values())} messages, {kills} kills")
    assert check(sent, events) == []
