"""Frameworks on StiQueue and on Redis: tasks per second enqueued, and worked off by 1 and 8 workers.

Each task writes one byte to a file, so that one watch serves every framework and broker. Tasks are enqueued first, by
one process, one after another; then a worker starts, and the time from the first byte to the last counts.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

APPLICATION = """
import asyncio, os, sys, time
FRAMEWORK, BROKER, PORT = os.environ["FRAMEWORK"], os.environ["BROKER"], int(os.environ["PORT"])
REDIS = f"redis://127.0.0.1:{PORT}/0"
out = os.open(os.environ["DONE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def work():
    os.write(out, b".")

if FRAMEWORK == "celery":
    from celery import Celery
    import stiqueue.adapters.celery
    app = Celery("app", broker=REDIS if BROKER == "redis" else f"stiqueue://127.0.0.1:{PORT}")
    app.conf.task_ignore_result = True
    task = app.task(name="work")(work)
    send = task.delay
elif FRAMEWORK == "dramatiq":
    import dramatiq
    if BROKER == "redis":
        from dramatiq.brokers.redis import RedisBroker
        broker = RedisBroker(url=REDIS)
    else:
        from stiqueue.adapters.dramatiq import StiQueueBroker
        broker = StiQueueBroker(port=PORT)
    dramatiq.set_broker(broker)
    send = dramatiq.actor(work).send
else:
    if BROKER == "redis":
        from taskiq_redis import RedisStreamBroker
        broker = RedisStreamBroker(REDIS)
    else:
        from stiqueue.adapters.taskiq import StiQueueBroker
        broker = StiQueueBroker(port=PORT, prefetch=int(os.environ.get("WORKERS", "8")))
    async def work_soon():
        work()
    task = broker.task("work")(work_soon)

def enqueue(number):
    if FRAMEWORK != "taskiq":
        send()  # connects
        began = time.monotonic()
        for _ in range(number - 1):
            send()
        return (number - 1) / (time.monotonic() - began)
    async def main():
        await broker.startup()
        await task.kiq()
        began = time.monotonic()
        for _ in range(number - 1):
            await task.kiq()
        rate = (number - 1) / (time.monotonic() - began)
        await broker.shutdown()
        return rate
    return asyncio.run(main())

if __name__ == "__main__":
    print(enqueue(int(sys.argv[1])))
"""

FRAMEWORKS = ("celery", "dramatiq", "taskiq")
BROKERS = ("redis in memory", "stiqueue in memory", "redis on disk", "stiqueue on disk")
"""On disk: each task is synced before its publisher goes on. Redis' default is neither: it saves now and then."""
PATIENCE = 120.0


def command(framework: str, workers: int) -> list[str]:
    """Return what runs so many workers."""
    return {
        "celery": ["celery", "-A", "app", "worker", "-P", "prefork", "-c", str(workers), "-l", "error"],
        "dramatiq": ["dramatiq", "app", "-p", "1", "-t", str(workers)],
        "taskiq": [
            "taskiq",
            "worker",
            "app:broker",
            "-w",
            "1",
            "--max-async-tasks",
            str(workers),
            "--log-level",
            "ERROR",
        ],
    }[framework]


@contextmanager
def process(arguments: list[str], directory: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run a program, and end it and its children."""
    with (directory / "log").open("ab") as log:
        running = subprocess.Popen(
            arguments, cwd=directory, env={**os.environ, **environment}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(20)
        except subprocess.TimeoutExpired:
            pass
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.wait()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(broker: str, port: int, directory: Path) -> list[str]:
    """Return what runs a broker."""
    if broker.startswith("redis"):
        synced = ["--appendonly", "yes", "--appendfsync", "always"] if broker.endswith("disk") else []
        return [
            "redis-server",
            "--port",
            str(port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(directory),
            "--save",
            "",
            *synced,
        ]
    data = ":memory:" if broker.endswith("memory") else str(directory / "stiqueue.db")
    return [sys.executable, "-m", "stiqueue.sqserver", "--port", str(port), "--data", data]


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on {port}")


def worked_off(done: Path, number: int) -> float:
    """Return tasks per second from the first to the last."""
    deadline, first = time.monotonic() + PATIENCE, 0.0
    size = 0
    while time.monotonic() < deadline:
        now, size = time.monotonic(), done.stat().st_size
        if size and not first:
            first, before = now, size
        if size >= number:
            return (number - before) / (now - first)
        time.sleep(0.002)
    raise TimeoutError(f"only {size} of {number} tasks were done")


def measure(framework: str, broker: str, workers: int, number: int) -> tuple[float, float]:
    """Return tasks per second enqueued and worked off."""
    directory = Path(tempfile.mkdtemp())
    try:
        (directory / "app.py").write_text(APPLICATION)
        port, done = free_port(), directory / "done"
        done.touch()
        environment = {
            "FRAMEWORK": framework,
            "BROKER": broker.split()[0],
            "PORT": str(port),
            "DONE": str(done),
            "WORKERS": str(workers),
        }
        with process(serve(broker, port, directory), directory, {}):
            wait_for(port)
            ran = subprocess.run(
                [sys.executable, "app.py", str(number)],
                cwd=directory,
                env={**os.environ, **environment},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            enqueued = float(ran.stdout)
            with process([sys.executable, "-m", *command(framework, workers)], directory, environment):
                return enqueued, worked_off(done, number)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> None:
    """Measure what the arguments say; print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=3_000)
    parser.add_argument("--rounds", type=int, default=3, help="the median counts")
    parser.add_argument("--only", choices=["memory", "disk"], help="brokers that keep tasks there")
    parser.add_argument("frameworks", nargs="*", default=[], choices=[*FRAMEWORKS, []])
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended
    brokers = [broker for broker in BROKERS if not options.only or broker.endswith(options.only)]
    print("| framework | broker | enqueued/s | 1 worker/s | 8 workers/s |\n|---|---|---|---|---|")
    for framework in options.frameworks or FRAMEWORKS:
        found: dict[str, list[list[float]]] = {broker: [[], [], []] for broker in brokers}
        for _ in range(options.rounds):
            for broker in brokers:  # in turn, so that a slow moment hits all
                for column, workers in ((1, 1), (2, 8)):
                    enqueued, done = measure(framework, broker, workers, options.tasks)
                    print(f"{framework}, {broker}, {workers}: {enqueued:,.0f} {done:,.0f}", file=sys.stderr, flush=True)
                    found[broker][0].append(enqueued)
                    found[broker][column].append(done)
        medians = {broker: [sorted(each)[len(each) // 2] for each in columns] for broker, columns in found.items()}
        for broker, rates in medians.items():
            bases = medians[f"redis {broker.split(maxsplit=1)[1]}"]
            cells = [f"{rate:,.0f} ({rate / base:.2f})" for rate, base in zip(rates, bases, strict=True)]
            print(f"| {framework} | {broker} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
