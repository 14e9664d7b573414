"""Measures the console: how long pages of a long queue take, and what watching many queues costs the server.

Run it on an idle machine: ``.venv/bin/python scripts/console.py [--messages 1000000] [--queues 5000]``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from stiqueue import SQClient

PORT, WEB_PORT = 23_412, 23_413
REQUESTS = 200
WATCHED_SECONDS = 20.0
WATCH = f"""
import http.client
connection = http.client.HTTPConnection("127.0.0.1", {WEB_PORT}, timeout=60)
connection.request("GET", "/live")
answer = connection.getresponse()
while answer.read1():
    pass
"""
"""A browser that watches the overview."""
PAGES = {
    "first page, next first": "/queues/long",
    "first page, newest first": "/queues/long?order=newest",
    "a page in the middle": "/queues/long?after={middle}",
    "the page before it": "/queues/long?before={middle}",
    "one message": "/queues/long/messages/{middle}?state=ready",
    "the overview": "/",
}


@contextlib.contextmanager
def command(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command until the end of the block."""
    with subprocess.Popen([sys.executable, "-m", "stiqueue", *map(str, arguments)]) as process:
        try:
            yield process
        finally:
            process.terminate()


def ask(path: str) -> float:
    """Return how many milliseconds a page takes."""
    connection = http.client.HTTPConnection("127.0.0.1", WEB_PORT, timeout=30)
    began = time.perf_counter()
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 200, (path, answer.status)
    return (time.perf_counter() - began) * 1_000


def wait() -> None:
    """Wait until the console and the server behind it answer."""
    deadline = time.monotonic() + 30
    while True:
        try:
            ask("/")
            return
        except (OSError, AssertionError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def measure(name: str, path: str, server: subprocess.Popen[bytes], console: subprocess.Popen[bytes]) -> None:
    """Ask for a page many times and print what it takes."""
    for _ in range(REQUESTS // 10):
        ask(path)  # the first ones load templates and connect
    before = processor_seconds(server), processor_seconds(console)
    times = sorted(ask(path) for _ in range(REQUESTS))
    after = processor_seconds(server), processor_seconds(console)
    used = [(new - old) / REQUESTS * 1_000 for new, old in zip(after, before, strict=True)]
    p50, p95 = times[REQUESTS // 2], times[REQUESTS * 95 // 100]
    print(f"  {name:25}  p50 {p50:6.1f}  p95 {p95:6.1f}  most {times[-1]:6.1f}  ", end="")
    print(f"processor time: server {used[0]:5.1f}  console {used[1]:5.1f}")


def processor_seconds(process: subprocess.Popen[bytes]) -> float:
    """Return what a process has used so far."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--queues", type=int, default=5_000)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        data = Path(folder) / "queue.db"
        with (
            command("serve", "--port", PORT, "--data", data) as server,
            command("web", "--port", PORT, "--web-port", WEB_PORT) as console,
        ):
            wait()
            with SQClient(port=PORT) as client:
                body = b'{"order": 123456, "customer": "c-42", "items": [1, 2, 3]}' * 2
                client.enq_many([body] * given.messages, queue="long", headers={"tenant": "acme"})
                print(f"{given.messages:,} messages of {len(body)} bytes, {REQUESTS} requests for each page, in ms:")
                for name, path in PAGES.items():
                    measure(name, path.format(middle=given.messages // 2), server, console)
                for number in range(given.queues):
                    client.enq_soon("x", queue=f"tenant-{number:05}")
                client.flush()
            for viewers in (0, 1, 10):
                watching = [subprocess.Popen([sys.executable, "-c", WATCH]) for _ in range(viewers)]
                time.sleep(5)
                before = processor_seconds(server), processor_seconds(console)
                time.sleep(WATCHED_SECONDS)
                after = processor_seconds(server), processor_seconds(console)
                used = [(new - old) / WATCHED_SECONDS * 100 for new, old in zip(after, before, strict=True)]
                print(f"{given.queues:,} queues, {viewers} viewers: {used[0]:.2f} % of a core in the server, ", end="")
                print(f"{used[1]:.2f} % in the console")
                for each in watching:
                    each.kill()
                    each.wait()
                time.sleep(2)


if __name__ == "__main__":
    main()
