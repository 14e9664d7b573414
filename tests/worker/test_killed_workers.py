"""Calls from many clients to workers that are killed: each caller gets its own answer, and nothing is left."""

from __future__ import annotations

import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stiqueue import NoAnswer, SQClient, SQServer
from tests.support.waiting import PATIENCE, Call, until

CLIENTS, WORKERS = 20, 5
WORKER = """
import sys, time
from stiqueue import Worker
def square(message):
    time.sleep(0.005)
    return f"{message.decode()}: {int(message) ** 2}"
Worker(square, "squares", threads=2, port=int(sys.argv[1])).run()
"""


@pytest.mark.slow
def test_each_of_1000_calls_gets_its_own_answer(server: SQServer) -> None:
    call_and_kill(server, 1_000, every=0.3)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_each_of_10000_calls_gets_its_own_answer(server: SQServer) -> None:
    call_and_kill(server, 10_000, every=1.0)


def call_and_kill(server: SQServer, calls: int, every: float) -> None:
    """Make calls while one worker after another is killed and replaced, `every` so many seconds."""

    def start() -> subprocess.Popen[bytes]:
        root = str(Path(__file__).parents[2])
        return subprocess.Popen([sys.executable, "-c", WORKER, str(server.port)], env={"PYTHONPATH": root})

    answered: dict[int, bytes] = {}
    late: list[int] = []

    def ask(first: int) -> None:
        with SQClient(port=server.port) as client:
            for number in range(first, calls, CLIENTS):
                try:
                    answer = client.call(str(number), queue="squares", timeout=PATIENCE)
                except NoAnswer:
                    late.append(number)
                else:
                    assert number not in answered
                    answered[number] = bytes(answer)

    processes = [start() for _ in range(WORKERS)]
    ended = threading.Event()
    kills = 0
    try:
        asking = [Call(ask, first) for first in range(CLIENTS)]
        with SQClient(port=server.port) as watching:
            until(lambda: watching.counts(queue="squares").acked > 0)
            while not all(call.is_over() for call in asking):
                ended.wait(every)
                victim = random.randrange(WORKERS)
                processes[victim].kill()
                processes[victim].wait(PATIENCE)
                processes[victim] = start()
                kills += 1
            for call in asking:
                call.result()
            queues = watching.queues
            until(
                lambda: {
                    name: (each.ready, each.leased) for name, each in queues().items() if each.ready or each.leased
                },
                {},
            )
    finally:
        for process in processes:
            process.kill()
            process.wait(PATIENCE)
    assert kills >= 3
    assert late == []  # each call had 20 s, and there was always a worker
    assert answered == {number: f"{number}: {number**2}".encode() for number in range(calls)}
