"""Actors of Dramatiq for tests: they say in the queue "seen" what they do."""

from __future__ import annotations

import os
import time

import dramatiq

from stiqueue import SQClient
from stiqueue.adapters.dramatiq import StiQueueBroker

PORT = int(os.environ.get("PORT", "0"))
broker = StiQueueBroker(port=PORT or 1234)
dramatiq.set_broker(broker)
tell = SQClient(port=PORT or 1234, queue="seen")


@dramatiq.actor
def mark(number: int) -> None:
    """Say `number`."""
    tell.enq(str(number))


@dramatiq.actor
def hold(name: str, seconds: float) -> None:
    """Say "begin NAME", take `seconds`, and say "end NAME"."""
    tell.enq(f"begin {name}")
    time.sleep(seconds)
    tell.enq(f"end {name}")


@dramatiq.actor(max_retries=2, min_backoff=10, max_backoff=10)
def fail() -> None:
    """Say so, and fail."""
    tell.enq("tried")
    raise RuntimeError("broken")
