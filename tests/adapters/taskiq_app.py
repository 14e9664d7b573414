"""Tasks of Taskiq for tests: they say in the queue "seen" what they do."""

from __future__ import annotations

import asyncio
import os

from stiqueue import AsyncSQClient
from stiqueue.adapters.taskiq import StiQueueBroker

PORT = int(os.environ.get("PORT", "0")) or 1234
broker = StiQueueBroker(port=PORT, prefetch=int(os.environ.get("PREFETCH", "10")))


async def say(what: str) -> None:
    """Put `what` where the test reads it."""
    async with AsyncSQClient(port=PORT, queue="seen") as client:
        await client.enq(what)


@broker.task("mark")
async def mark(number: int) -> None:
    """Say `number`."""
    await say(str(number))


@broker.task("hold")
async def hold(name: str, seconds: float) -> None:
    """Say "begin NAME", take `seconds`, and say "end NAME"."""
    await say(f"begin {name}")
    await asyncio.sleep(seconds)
    await say(f"end {name}")
