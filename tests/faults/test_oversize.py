"""Requests that are too large for the server, and messages that are too large for a consumer: fault 36."""

from __future__ import annotations

import time
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from stiqueue.limits import MESSAGE_ROOM
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

from .goodness import resident_bytes
from .run import Run

MIB = 1 << 20
LIMIT = 4 * MIB - MESSAGE_ROOM
SECONDS = 10.0
REFUSAL_SECONDS = 5.0
"""How long refusing a request of 100 MiB may take: 1 s, and room for a machine that does other work."""

MOST_ROUNDS = 15
SLACK_BYTES = 10 * MIB
"""By how much memory may still grow in three rounds; to keep one request of each would be more than that."""


def enq_code(run: Run, **fields: Any) -> tuple[str, float]:
    """Enqueue; return how that ended, and after how many seconds."""
    request = pb.EnqRequest(**fields)
    stub = run.stub()
    began = time.monotonic()
    try:
        stub.Enq(request, timeout=SECONDS, wait_for_ready=True)
    except grpc.RpcError as error:
        call: Any = error
        return call.code().name, time.monotonic() - began
    return "OK", time.monotonic() - began


def test_36_oversize(run: Run) -> None:
    """A body at the limit is taken; one byte more, 100 MiB, too much together, and too many are refused.

    Within 1 s, and nothing is stored. The server's memory stops growing: what refused requests took is used for the
    next ones. When it has all that it needs is up to its allocator.
    """
    server = run.server()
    for size in (LIMIT - 1, LIMIT):
        assert enq_code(run, bodies=[bytes(size)])[0] == "OK"
    assert enq_code(run, bodies=[b""] * 100_000)[0] == "OK"
    for response in run.stub().Deq(pb.DeqRequest(no_ack=True, prefetch=10_000, wait=Duration()), timeout=SECONDS):
        assert response.messages
    run.wait_for_counts(5, ready=0)
    refused: dict[str, tuple[dict[str, Any], str]] = {
        "one byte more": ({"bodies": [bytes(LIMIT + 1)]}, "INVALID_ARGUMENT"),
        "100 MiB": ({"bodies": [bytes(100 * MIB)]}, "RESOURCE_EXHAUSTED"),
        "5 of 1 MiB": ({"bodies": [bytes(MIB)] * 5}, "RESOURCE_EXHAUSTED"),
        "1,000,000 empty ones": ({"bodies": [b""] * 1_000_000}, "INVALID_ARGUMENT"),
    }
    sizes: list[int] = []
    while len(sizes) < 4 or max(sizes[-3:]) > sizes[-4] + SLACK_BYTES:
        assert len(sizes) < MOST_ROUNDS, [size // MIB for size in sizes]
        for what, (fields, expected) in refused.items():
            code, seconds = enq_code(run, **fields)
            print(f"{what}: {code} after {seconds * 1000:.0f} ms")
            assert code == expected, what
            assert seconds <= REFUSAL_SECONDS, what
        sizes.append(resident_bytes(server.pid))
    assert run.counts().ready == 0
    print("memory in MiB after each round:", [size // MIB for size in sizes])


def test_36_larger_than_a_consumer_can_receive(run: Run) -> None:
    """A message that breaks the stream of a consumer with a small limit goes round, and to the dead letters.

    Neither does it hold up the others: a consumer with another limit gets all that there is.
    """
    server = run.server("--max-attempts", "3")
    run.stub().Enq(pb.EnqRequest(bodies=[bytes(2 * MIB), b"small"]), timeout=SECONDS)
    with grpc.insecure_channel(server.target, [("grpc.max_receive_message_length", MIB)]) as channel:
        got: list[bytes] = []
        for _ in range(4):
            try:
                for response in QueueServiceStub(channel).Deq(
                    pb.DeqRequest(wait=Duration(), no_ack=False, max_messages=1), timeout=SECONDS
                ):
                    got += [each.body for each in response.messages]
                    run.stub().Ack(
                        pb.AckRequest(lease_ids=[each.lease_id for each in response.messages]), timeout=SECONDS
                    )
            except grpc.RpcError as error:
                call: Any = error
                assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED, call.details()
    assert got == [b"small"]
    assert run.counts("default.dead").ready == 1
    run.wait_for_counts(5, ready=0, leased=0)
