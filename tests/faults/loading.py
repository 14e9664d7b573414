"""A steady load on one queue from threads of the test, too much to be written down message by message."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import grpc

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1 import queue_pb2_grpc

from .holding import PLAIN

SECONDS = 60.0
"""How long one call may take."""
PREFETCH = 2_000


def enqueue_many(
    stub: queue_pb2_grpc.QueueServiceStub, number: int, queue: str = "default", batch: int = 1_000
) -> None:
    """Enqueue messages of 100 bytes, each with its number."""
    for begin in range(0, number, batch):
        bodies = [b"%099d." % n for n in range(begin, min(number, begin + batch))]
        stub.Enq(pb.EnqRequest(bodies=bodies), timeout=SECONDS)


def drain_many(stub: queue_pb2_grpc.QueueServiceStub, number: int) -> int:
    """Take and acknowledge so many messages; return how many of them were not the next in order."""
    expected = wrong = 0
    acks: list[grpc.Future] = []
    request = pb.DeqRequest(prefetch=PREFETCH, max_messages=number)
    for response in stub.Deq(request, timeout=SECONDS * 10):
        for message in response.messages:
            wrong += int(message.body[:99]) != expected
            expected += 1
        leases = [message.lease_id for message in response.messages]
        acks.append(stub.Ack.future(pb.AckRequest(lease_ids=leases), timeout=SECONDS))
        acks = [ack for ack in acks if not (ack.done() and not ack.result().stale_lease_ids)]
    assert not any(ack.result().stale_lease_ids for ack in acks)
    assert expected == number
    return wrong


class Load:
    """A producer, a consumer and somebody who looks: so many messages and looks a second, until it is closed."""

    def __init__(self, target: str, rate: int, batch: int, looks: int) -> None:
        """Aim at a server: `rate` messages a second in requests of `batch`, `looks` counts and peeks a second."""
        self.commits: list[tuple[float, float]] = []
        """When each `Enq` was confirmed, in seconds since the beginning, and how long it took."""
        self.confirmed = 0
        self.acked = 0
        self.looked = 0
        self.failures: list[str] = []
        self._channels = [grpc.insecure_channel(target, PLAIN) for _ in range(3)]
        self._stubs = [queue_pb2_grpc.QueueServiceStub(channel) for channel in self._channels]
        self._batch, self._pause, self._look_pause = batch, batch / rate, 1 / looks
        self._ends = threading.Event()
        self._began = time.monotonic()
        self._deq: grpc.RpcContext | None = None
        self._threads = [
            threading.Thread(target=self._guarded, args=(work,), name=work.__name__, daemon=True)
            for work in (self._produce, self._consume, self._look)
        ]

    def p99(self, begin: float, end: float) -> float:
        """Return the time that 1 of 100 commits of that time exceeded; both in seconds since the beginning."""
        took = sorted(seconds for at, seconds in self.commits if begin <= at < end)
        return took[int(len(took) * 0.99)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.set()
        self._threads[0].join(SECONDS)
        give_up = time.monotonic() + SECONDS
        while self.acked < self.confirmed and time.monotonic() < give_up and not self.failures:
            time.sleep(0.01)
        if self._deq is not None:
            self._deq.cancel()
        for thread in self._threads:
            thread.join(SECONDS)
        for channel in self._channels:
            channel.close()

    def _guarded(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.CANCELLED:
                self.failures.append(str(error))

    def _produce(self) -> None:
        request = pb.EnqRequest(bodies=[b"x" * 100] * self._batch)
        due = time.monotonic()
        while not self._ends.wait(max(0.0, due - time.monotonic())):
            begin = time.monotonic()
            self._stubs[0].Enq(request, timeout=SECONDS, wait_for_ready=True)
            now = time.monotonic()
            self.commits.append((now - self._began, now - begin))
            self.confirmed += self._batch
            due = max(due + self._pause, now - 1.0)

    def _consume(self) -> None:
        self._deq = call = self._stubs[1].Deq(pb.DeqRequest(prefetch=PREFETCH), wait_for_ready=True)
        for response in call:
            leases = [message.lease_id for message in response.messages]
            stale = self._stubs[1].Ack(pb.AckRequest(lease_ids=leases), timeout=SECONDS).stale_lease_ids
            self.acked += len(leases) - len(stale)

    def _look(self) -> None:
        while not self._ends.wait(self._look_pause):
            if self.looked % 2:
                list(self._stubs[2].Peek(pb.PeekRequest(limit=10, state=pb.MESSAGE_STATE_ALL), timeout=SECONDS))
            else:
                self._stubs[2].Cnt(pb.CntRequest(), timeout=SECONDS)
            self.looked += 1
