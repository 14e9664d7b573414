"""Celery on StiQueue: start a server (`stiqueue serve`) and run this file. It starts a worker and sends it tasks.

In a project of yours the worker is `celery -A celery_app worker`, and needs no other change than the broker's URL.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from celery import Celery

import stiqueue.adapters.celery  # noqa: F401  # makes stiqueue:// known

PORT = os.environ.get("STIQUEUE_PORT", "1234")
app = Celery("celery_app", broker=f"stiqueue://127.0.0.1:{PORT}", backend="rpc://")
app.conf.task_acks_late = True  # a task of a worker that is killed starts elsewhere


@app.task
def square(number: int) -> int:
    """Return the square of a number."""
    return number**2


def main() -> None:
    """Run a worker, and three tasks, one of them a second from now."""
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-c", "2", "-l", "error"],
        cwd=Path(__file__).parent,
    )
    try:
        began = time.monotonic()
        later = square.apply_async([5], countdown=1)
        print("now:", square.delay(3).get(timeout=30), square.delay(4).get(timeout=30))
        print("later:", later.get(timeout=30), "after a second:", time.monotonic() - began >= 1)
    finally:
        worker.terminate()
        worker.wait()


if __name__ == "__main__":
    main()
