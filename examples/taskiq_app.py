"""Taskiq on StiQueue: start a server (`stiqueue serve`) and run this file. It starts a worker and sends it tasks.

In a project of yours the worker is `taskiq worker taskiq_app:broker`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from stiqueue import AsyncSQClient
from stiqueue.adapters.taskiq import StiQueueBroker

PORT = int(os.environ.get("STIQUEUE_PORT", "1234"))
broker = StiQueueBroker("127.0.0.1", PORT, queue="squares")


@broker.task("square")
async def square(number: int) -> None:
    """Put the square of a number into the queue "results"."""
    async with AsyncSQClient("127.0.0.1", PORT) as client:
        await client.enq(str(number**2), queue="results")


async def main() -> None:
    """Send three tasks, one of them a second from now, and wait for what they say."""
    options = ["-m", "taskiq", "worker", "-w", "1", "--log-level", "ERROR", "taskiq_app:broker"]
    worker = await asyncio.create_subprocess_exec(sys.executable, *options, cwd=Path(__file__).parent)
    try:
        await square.kicker().with_labels(delay=1).kiq(5)
        await square.kiq(3)
        await square.kiq(4)
        async with AsyncSQClient("127.0.0.1", PORT, queue="results") as client:
            print("squares:", sorted([int(await client.deq()) for _ in range(3)]))
    finally:
        worker.terminate()
        await worker.wait()
        await broker.shutdown()


if __name__ == "__main__":
    asyncio.run(main())
