"""Dramatiq on StiQueue: start a server (`stiqueue serve`) and run this file. It works in a thread and sends messages.

In a project of yours the worker is `dramatiq dramatiq_app`.
"""

from __future__ import annotations

import os

import dramatiq

from stiqueue.adapters.dramatiq import StiQueueBroker

broker = StiQueueBroker("127.0.0.1", int(os.environ.get("STIQUEUE_PORT", "1234")))
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="squares")
def square(number: int) -> None:
    """Print the square of a number."""
    print(number**2, flush=True)


def main() -> None:
    """Send three messages, one of them a second from now, and work on them."""
    square.send_with_options(args=(5,), delay=1_000)
    square.send(3)
    square.send(4)
    worker = dramatiq.Worker(broker, worker_threads=1)
    worker.start()
    broker.join(square.queue_name, timeout=30_000)
    worker.stop()
    broker.close()


if __name__ == "__main__":
    main()
