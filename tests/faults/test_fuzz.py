"""Requests of random bytes, broken ones, and valid ones with values at the edges: fault 38."""

from __future__ import annotations

import contextlib
import random
import re
import time
from collections import Counter
from typing import Any

import grpc
import pytest

from stiqueue.v1 import queue_pb2 as pb

from .goodness import descriptors, lines_per_second, threads, usual_p99, wait_for_descriptors
from .processes import wait_until
from .run import Run

SECONDS = 10.0
SERVICE = "/stiqueue.v1.QueueService"
METHODS = {
    "Enq": pb.EnqRequest,
    "Deq": pb.DeqRequest,
    "Ack": pb.AckRequest,
    "Cnt": pb.CntRequest,
    "Peek": pb.PeekRequest,
}
STREAMING = {"Deq", "Peek"}
EDGES = [0, 1, -1, 127, 128, 255, 256, 2**31 - 1, -(2**31), 2**63 - 1, -(2**63)]
TEXTS = ["", "a", "../", "a/b", "\0", "a\nb", "\N{PARTY POPPER}", "n" * 128, "n" * 129, "x" * 10_000]
AT_ONCE = 90
"""Less than a connection may have at a time."""
STREAM_SECONDS = 0.25
"""How long a subscription that nobody ends is kept."""


def valid_request(chance: random.Random, method: str) -> Any:
    """Return a request whose fields are of the right types, with values at and beyond the edges."""
    request = METHODS[method]()
    for field in request.DESCRIPTOR.fields:
        if chance.random() < 0.5:
            continue
        if field.message_type is not None and field.message_type.name == "Duration":
            duration = getattr(request, field.name)
            duration.seconds, duration.nanos = chance.choice(EDGES), chance.choice([0, 1, -1, 10**9, -(2**31)])
        elif field.message_type is not None:  # headers
            request.headers[chance.choice(TEXTS)] = chance.choice(TEXTS)
        elif field.cpp_type in (field.CPPTYPE_STRING,):
            value: Any = chance.choice(TEXTS) if field.type == field.TYPE_STRING else chance.randbytes(10)
            getattr(request, field.name).append(value) if is_list(field) else setattr(request, field.name, value)
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(request, field.name, True)
        else:
            bits = 64 if "64" in {1: "32", 2: "64", 3: "u32", 4: "u64", 8: "32"}[field.cpp_type] else 32
            value = chance.choice(EDGES) % (1 << bits)
            signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM)
            setattr(request, field.name, value - (1 << bits) if signed and value >> (bits - 1) else value)
    return request


def is_list(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 0) == 3)


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return a request that is noise, cut, has flipped bits, unknown fields, or nested ones without end."""
    kind = chance.randrange(6)
    if kind == 0:
        return chance.randbytes(chance.randrange(200))
    if kind == 1:
        return data[: chance.randrange(len(data) + 1)]
    if kind == 2 and data:
        flipped = bytearray(data)
        for _ in range(chance.randrange(1, 5)):
            flipped[chance.randrange(len(flipped))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    if kind == 3:
        return data + b"\xfa\x3f\x03abc" + b"\xf8\x3f\x01"  # fields 1023
    if kind == 4:
        return b"\x2b" * chance.randrange(1, 5_000)  # groups within groups
    return data


def fuzz(run: Run, rounds: int) -> None:
    # What asks for little may be granted: the most that a stream may be idle is a moment.
    server = run.server("--max-queues", "50", "--max-messages", "100")
    chance = run.random
    usual_p99(server.target, 0.2)
    open_before, threads_before = descriptors(server.pid), threads(server.pid)
    codes: Counter[tuple[str, str]] = Counter()
    began = time.monotonic()
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        calls = {
            (method, kind): getattr(channel, kind)(f"{SERVICE}/{method}")
            for method in [*METHODS, "None"]
            for kind in ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
        }
        for _ in range(0, rounds, AT_ONCE):
            under_way = []
            for _ in range(AT_ONCE):
                method = chance.choice(list(METHODS))
                data = mutated(chance, valid_request(chance, method).SerializeToString())
                kind = "unary_stream" if method in STREAMING else "unary_unary"
                if chance.random() < 0.05:
                    kind = chance.choice(["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
                    method = chance.choice([method, "None"])
                argument = iter([data, data]) if kind.startswith("stream") else data
                call = calls[method, kind]
                begin = call.future if kind.endswith("unary") else call
                timeout = STREAM_SECONDS if kind.endswith("stream") else SECONDS
                under_way.append((method, kind, begin(argument, timeout=timeout)))
            for method, kind, call in under_way:
                if kind.endswith("stream"):
                    with contextlib.suppress(grpc.RpcError):
                        for _ in call:
                            pass
                code = call.code()  # waits
                codes[method, code.name] += 1
                if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    assert "DecodeError" in call.details() or "deserializ" in call.details(), call.details()
    seconds = time.monotonic() - began
    print(f"{rounds} calls in {seconds:.0f} s: {dict(sorted(codes.items()))}")
    assert not server.has_ended
    assert "defect" not in server.log
    assert lines_per_second(server, 0, seconds) <= 10
    assert codes["Enq", "INVALID_ARGUMENT"] > rounds / 50
    counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
    assert all(re.fullmatch(r"[A-Za-z0-9._-]{1,128}", each.queue) for each in counts)

    def nothing_is_left() -> bool:
        counts = run.stub().Cnt(pb.CntRequest(), timeout=SECONDS).queues
        return not any(each.leased or each.consumers for each in counts)

    wait_until(nothing_is_left, SECONDS, "no lease and no consumer")
    wait_for_descriptors(server, open_before)
    assert threads(server.pid) <= threads_before + 3
    stub = run.stub()
    stub.Enq(pb.EnqRequest(queue="good", bodies=[b"a"]), timeout=SECONDS)
    response = next(stub.Deq(pb.DeqRequest(queue="good", no_ack=True, max_messages=1), timeout=SECONDS))
    assert response.messages[0].body == b"a"


@pytest.mark.timeout(120)
def test_38_random_requests(run: Run) -> None:
    """2,000 requests of noise, flipped bits, unknown and nested fields, edge values, methods of the wrong kind.

    No crash, no exception of ours, no thread, lease or descriptor left, at most 10 lines a second in the log.
    """
    fuzz(run, 2_000)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_38_random_requests_20_000(run: Run) -> None:
    """The same, ten times as many."""
    fuzz(run, 20_000)
