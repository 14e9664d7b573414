"""StiQueue 2 by its blocking client, as the README shows it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import repeat

from benchmark.clients.base import Client, body_of
from stiqueue import SQClient


class StiQueueClient(Client):
    """One `SQClient`, shared by all threads. `deq` acks the previous message while it waits for the next."""

    def __init__(self, port: int, queue: str = "bench") -> None:
        self._client = SQClient(port=port, queue=queue)

    def enq(self, body: bytes) -> None:
        self._client.enq(body)

    def deq(self) -> bytes:
        message = self._client.deq()
        assert message is not None
        return message

    def settle(self) -> None:
        self._client.ack()

    def enq_batch(self, bodies: list[bytes]) -> None:
        self._client.enq_many(bodies)

    def enq_batches(self, number: int, size: int, batch: int) -> None:
        # From 1,000 on one `enq_many` for all: it makes batches of 1,000 by itself, one under way at a time.
        if batch >= 1000:
            self._client.enq_many(repeat(body_of(size), number))
        else:
            super().enq_batches(number, size, batch)

    def deq_batches(self, number: int, prefetch: int) -> None:
        messages = self._client.consume(prefetch=prefetch)
        for count, message in enumerate(messages, 1):
            if count == number:
                message.ack()  # the loop does not ask for another, which would ack it
                break
        messages.close()  # type: ignore[attr-defined] # a generator; waits for the acks under way

    def medians(self, number: int) -> dict[str, float]:
        """Return the medians of single `enq`, `cnt` and `peek` calls in microseconds, alternating."""
        body = body_of(100)
        calls: dict[str, Callable[[], object]] = {
            "enq": lambda: self._client.enq(body),
            "cnt": self._client.cnt,
            "peek": lambda: self._client.peek(1),
        }
        took: dict[str, list[int]] = {name: [] for name in calls}
        for _ in range(number):
            for name, call in calls.items():
                began = time.perf_counter_ns()
                call()
                took[name].append(time.perf_counter_ns() - began)
        return {name: statistics.median(each) / 1000 for name, each in took.items()}

    def ready(self) -> int:
        """Return how many messages are ready."""
        return self._client.cnt()

    def clear(self) -> None:
        self._client.purge()

    def close(self) -> None:
        self._client.close()


class Bystander(StiQueueClient):
    """A client of the queue on which a `benchmark.clients.crowd.Crowd` waits."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "crowd")
