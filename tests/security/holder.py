"""Somebody who calls with a token, or without one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.wire import drain

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

SECONDS = 20.0


@contextmanager
def ending(call: Any) -> Iterator[None]:
    """Cancel a call in the end."""
    try:
        yield
    finally:
        call.cancel()


class Holder:
    """The five calls, and those of health and reflection, each with one token."""

    def __init__(self, channel: grpc.Channel, token: str | None, scheme: str = "Bearer") -> None:
        self._stub = QueueServiceStub(channel)
        self._health = health_pb2_grpc.HealthStub(channel)
        self._reflection = reflection_pb2_grpc.ServerReflectionStub(channel)
        self.options: dict[str, Any] = {"timeout": SECONDS}
        if token is not None:
            self.options["metadata"] = [("authorization", f"{scheme} {token}")]

    def enq(self, queue: str, body: bytes = b"a", ack: str = "") -> int:
        request = pb.EnqRequest(queue=queue, bodies=[body], ack_lease_ids=[ack] if ack else [])
        return self._stub.Enq(request, **self.options).first_id

    def deq(self, queue: str) -> Any:
        """Take what is ready and give it back."""
        call: Any = self._stub.Deq(pb.DeqRequest(queue=queue, wait=Duration()), **self.options)
        with ending(call):
            return next(call, None)

    def stream(self, queue: str) -> Any:
        call: Any = self._stub.Deq(pb.DeqRequest(queue=queue), **self.options)
        call.initial_metadata()
        return call

    def ack(self, *leases: str) -> list[str]:
        return list(self._stub.Ack(pb.AckRequest(lease_ids=leases or ["x"]), **self.options).stale_lease_ids)

    def exchange(self, lease: str) -> list[bytes]:
        request = pb.AckRequest(lease_ids=[lease], take_next=True)
        return [each.body for each in self._stub.Ack(request, **self.options).messages]

    def cnt(self, *queues: str) -> dict[str, int]:
        return {each.queue: each.ready for each in self._stub.Cnt(pb.CntRequest(queues=queues), **self.options).queues}

    def peek(self, queue: str) -> list[Any]:
        return drain(self._stub.Peek(pb.PeekRequest(queue=queue), **self.options))

    def health(self) -> int:
        return int(self._health.Check(health_pb2.HealthCheckRequest(), **self.options).status)

    def watch(self) -> int:
        call: Any = self._health.Watch(health_pb2.HealthCheckRequest(), **self.options)
        with ending(call):
            return int(next(call).status)

    def reflect(self) -> list[Any]:
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        return list(self._reflection.ServerReflectionInfo(iter([request]), **self.options))


QUEUE = "jobs.a"
"""The queue that `CALLS` are about."""

CALLS: dict[str, Callable[[Holder], object]] = {
    "enq": lambda holder: holder.enq(QUEUE),
    "deq": lambda holder: holder.deq(QUEUE),
    "ack": lambda holder: holder.ack(),
    "cnt": lambda holder: holder.cnt(),
    "peek": lambda holder: holder.peek(QUEUE),
}
"""The five of our service."""

OTHERS: dict[str, Callable[[Holder], object]] = {
    "health": lambda holder: holder.health(),
    "watch": lambda holder: holder.watch(),
    "reflection": lambda holder: holder.reflect(),
}
"""Those of the services beside ours."""
