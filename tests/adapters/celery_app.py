"""An application of Celery for tests: its tasks say in the queue "seen" what they do."""

from __future__ import annotations

import os
import time
from typing import Any

from celery import Celery

import stiqueue.adapters.celery  # noqa: F401  # knows stiqueue://
from stiqueue import SQClient

PORT = int(os.environ.get("PORT", "0"))
app = Celery("celery_app", broker=f"stiqueue://127.0.0.1:{PORT}", backend="rpc://")
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_acks_late=bool(os.environ.get("LATE")),
    worker_prefetch_multiplier=int(os.environ.get("MULTIPLIER", "4")),
)
tell = SQClient(port=PORT, queue="seen") if PORT else None


def say(what: str) -> None:
    """Put `what` where the test reads it."""
    assert tell is not None
    tell.enq(what)


@app.task
def add(x: int, y: int) -> int:
    """Return a sum."""
    return x + y


@app.task
def mark(number: int) -> None:
    """Say `number`."""
    say(str(number))


@app.task(bind=True)
def hold(self: Any, name: str, seconds: float) -> None:
    """Say "begin NAME", take `seconds`, and say "end NAME"."""
    say(f"begin {name}")
    time.sleep(seconds)
    say(f"end {name}")


@app.task(bind=True)
def unlucky(self: Any) -> int:
    """Fail twice."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.1)
    return int(self.request.retries)


@app.task
def outer() -> None:
    """Start another task."""
    mark.delay(7)
