"""What a workload asks of a system, and how it is done with a blocking client."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import repeat

STOP = b"stop"
"""A body that ends one receiver."""
STAMP_BYTES = 20


class Unsupported(Exception):
    """Raised when a system has no such operation."""


@dataclass(frozen=True)
class Spread:
    """How long single calls took, in microseconds."""

    p50: float
    p99: float
    longest: float

    @classmethod
    def of(cls, nanoseconds: list[int]) -> Spread:
        """Summarise at least one duration."""
        ordered = sorted(nanoseconds)
        last = len(ordered) - 1
        return cls(*(ordered[round(last * share)] / 1000 for share in (0.5, 0.99, 1.0)))


def body_of(size: int) -> bytes:
    """Return a body of `size` bytes."""
    return (b"0123456789abcdef" * (size // 16 + 1))[:size]


class Client:
    """One system as a workload sees it. A subclass gives the primitives, this class the loops around them.

    Every `enq` is confirmed by the server before it returns, and everything taken is acked in the way that users of the
    system do it; a subclass says where it cannot be so.
    """

    def enq(self, body: bytes) -> None:
        """Enqueue one message."""
        raise Unsupported

    def deq(self) -> bytes:
        """Wait for a message and ack it, at the latest with the next call."""
        raise Unsupported

    def settle(self) -> None:
        """Ack what `deq` has left."""

    def enq_batch(self, bodies: list[bytes]) -> None:
        """Enqueue messages together."""
        raise Unsupported

    def deq_batches(self, number: int, prefetch: int) -> None:
        """Take `number` messages, up to `prefetch` at a time, and ack them all."""
        raise Unsupported

    def for_thread(self) -> Client:
        """Return the client that another thread is to use; this one, where it is thread-safe."""
        return self

    def clear(self) -> None:
        """Remove every message."""

    def close(self) -> None:
        """Close the connections."""

    # -- what a driver runs -------------------------------------------------------------------------------------------

    def enq_each(self, number: int, size: int) -> Spread:
        """Enqueue `number` messages one by one."""
        body, took, clock = body_of(size), [], time.perf_counter_ns
        for _ in range(number):
            began = clock()
            self.enq(body)
            took.append(clock() - began)
        return Spread.of(took)

    def deq_each(self, number: int) -> Spread:
        """Take `number` messages one by one."""
        took, clock = [], time.perf_counter_ns
        for _ in range(number):
            began = clock()
            self.deq()
            took.append(clock() - began)
        self.settle()
        return Spread.of(took)

    def enq_batches(self, number: int, size: int, batch: int) -> None:
        """Enqueue `number` messages, `batch` at a time."""
        body = body_of(size)
        for start in range(0, number, batch):
            self.enq_batch(list(repeat(body, min(batch, number - start))))

    def enq_threads(self, number: int, size: int, threads: int) -> None:
        """Enqueue one by one from many threads, `number` messages in all."""
        in_threads(threads, self.for_thread, lambda client: client.enq_each(max(1, number // threads), size))

    def deq_threads(self, number: int, threads: int) -> None:
        """Take one by one in many threads, as many messages as `enq_threads` enqueued."""
        in_threads(threads, self.for_thread, lambda client: client.deq_each(max(1, number // threads)))

    def send(self, number: int, size: int, per_second: float, threads: int, stops: int) -> Spread:
        """Enqueue `number` messages that carry the time, at a steady rate, then `stops` that end receivers."""
        took: list[int] = []

        def pace(client: Client) -> None:
            each = max(1, number // threads)
            filler = body_of(max(0, size - STAMP_BYTES))
            start = time.perf_counter()
            for index in range(each):
                ahead = start + index * threads / per_second - time.perf_counter()
                if ahead > 0:
                    time.sleep(ahead)
                began = time.monotonic_ns()
                client.enq(b"%020d" % began + filler)
                took.append(time.monotonic_ns() - began)

        in_threads(threads, self.for_thread, pace)
        for _ in range(stops):
            self.enq(STOP)
        return Spread.of(took)

    def flow(self, seconds: float, size: int) -> float:
        """Enqueue messages that carry the time for so long, then one that ends a receiver; return how many a second."""
        filler, number, began = body_of(size - STAMP_BYTES), 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            self.enq(b"%020d" % time.monotonic_ns() + filler)
            number += 1
        took = time.perf_counter() - began
        self.enq(STOP)
        return number / took

    def receive(self, consumers: int) -> Spread:
        """Wait for what `send` sends, with many consumers; return how old messages are when they arrive."""
        ages: list[int] = []

        def wait(client: Client) -> None:
            while (body := client.deq()) != STOP:
                ages.append(time.monotonic_ns() - int(body[:STAMP_BYTES]))
            client.settle()

        in_threads(consumers, self.for_thread, wait)
        return Spread.of(ages)


async def timed(number: int, call: Callable[[], Awaitable[object]]) -> list[int]:
    """Await `number` calls, one after the other; return how long each took, in nanoseconds."""
    took, clock = [], time.perf_counter_ns
    for _ in range(number):
        began = clock()
        await call()
        took.append(clock() - began)
    return took


def in_threads(number: int, make: Callable[[], Client], work: Callable[[Client], object]) -> None:
    """Let `number` threads work at once, each with what `make` gives it; raise the first error."""
    clients = [make() for _ in range(number)]
    failures: list[BaseException] = []

    def run(client: Client) -> None:
        try:
            work(client)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(client,), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for client in {id(each): each for each in clients}.values():
        if client is not clients[0] or make() is not client:
            client.close()
    if failures:
        raise failures[0]
