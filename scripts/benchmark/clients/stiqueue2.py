"""StiQueue 2 by its blocking client, as the README shows it."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from itertools import repeat

from benchmark.clients.base import Client, Spread, body_of
from stiqueue import SQClient


class StiQueueClient(Client):
    """One `SQClient`, shared by all threads. `deq` acks the previous message while it waits for the next."""

    def __init__(self, port: int, queue: str = "bench") -> None:
        self._client = SQClient(port=port, queue=queue)
        self._ahead = SQClient(port=port, queue=queue, prefetch=100)

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

    def enq_keys(self, number: int, size: int, batch: int, keys: int) -> None:
        """Enqueue `number` messages, `batch` at a time, each batch with the next of so many keys."""
        for place, start in enumerate(range(0, number, batch)):
            self._client.enq_many(repeat(body_of(size), min(batch, number - start)), key=f"key-{place % keys}")

    def deq_batches(self, number: int, prefetch: int) -> None:
        messages = self._client.consume(prefetch=prefetch)
        for count, message in enumerate(messages, 1):
            if count == number:
                message.ack()  # the loop does not ask for another, which would ack it
                break
        messages.close()  # type: ignore[attr-defined] # a generator; waits for the acks under way

    def enq_soon(self, number: int, size: int) -> None:
        """Enqueue `number` messages one by one without waiting for each, and wait for all."""
        body, enq_soon = body_of(size), self._client.enq_soon
        for _ in range(number):
            enq_soon(body)
        self._client.flush()

    def deq_ahead(self, number: int) -> None:
        """Take `number` messages one by one that are sent ahead, and ack them all."""
        deq = self._ahead.deq
        for _ in range(number):
            deq()
        self._ahead.disconnect()

    def call_each(self, number: int, size: int) -> Spread:
        """Call one after another; a driver beside does `answer_each`."""
        body, took = body_of(size), []
        for _ in range(number):
            began = time.perf_counter_ns()
            self._client.call(body)
            took.append(time.perf_counter_ns() - began)
        return Spread.of(took)

    def answer_each(self, number: int) -> None:
        """Answer so many calls with their bodies."""
        messages = self._client.consume()
        for count, message in enumerate(messages, 1):
            message.reply(message)
            if count == number:
                break
        messages.close()

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

    def spreads(self, seconds: float) -> dict[str, dict[str, float]]:
        """Return how long single `enq` and `deq` calls take, alternating, in microseconds."""
        body, end = body_of(100), time.perf_counter() + seconds
        calls: dict[str, Callable[[], object]] = {"enq": lambda: self.enq(body), "deq": self.deq}
        took: dict[str, list[int]] = {name: [] for name in calls}
        while time.perf_counter() < end or not took["deq"]:
            for name, call in calls.items():
                began = time.perf_counter_ns()
                call()
                took[name].append(time.perf_counter_ns() - began)
        self.settle()
        return {name: dataclasses.asdict(Spread.of(each)) for name, each in took.items()}

    def ready(self) -> int:
        """Return how many messages are ready."""
        return self._client.cnt()

    def clear(self) -> None:
        self._client.purge()

    def close(self) -> None:
        self._ahead.close()
        self._client.close()


class Bystander(StiQueueClient):
    """A client of the queue on which a `benchmark.clients.crowd.Crowd` waits."""

    def __init__(self, port: int) -> None:
        super().__init__(port, "crowd")
