"""Requests that no client of ours would make: noise, broken ones, and valid ones with values at the edges."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from typing import Any

import grpc

from stiqueue.v1 import queue_pb2 as pb

CALL_SECONDS = 10.0
SERVICE = "/stiqueue.v1.QueueService"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
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


def _valid_request(chance: random.Random, method: str) -> Any:
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
            _set(request, field, value)
        elif field.cpp_type == field.CPPTYPE_BOOL:
            setattr(request, field.name, True)
        else:
            bits = 64 if "64" in {1: "32", 2: "64", 3: "u32", 4: "u64", 8: "32"}[field.cpp_type] else 32
            value = chance.choice(EDGES) % (1 << bits)
            signed = field.cpp_type in (field.CPPTYPE_INT32, field.CPPTYPE_INT64, field.CPPTYPE_ENUM)
            _set(request, field, value - (1 << bits) if signed and value >> (bits - 1) else value)
    return request


def _set(request: Any, field: Any, value: Any) -> None:
    getattr(request, field.name).append(value) if _is_list(field) else setattr(request, field.name, value)


def _is_list(field: Any) -> bool:
    return bool(getattr(field, "is_repeated", False) or getattr(field, "label", 0) == 3)


def _mutated(chance: random.Random, data: bytes) -> bytes:
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


class Fuzzer:
    """Calls the five methods, and one that is not there, with random requests."""

    def __init__(self, channel: grpc.Channel, chance: random.Random) -> None:
        """Call through `channel`."""
        self.codes: Counter[tuple[str, str]] = Counter()
        """How often a call of each method ended with each code."""
        self._chance = chance
        self._calls = {
            (method, kind): getattr(channel, kind)(f"{SERVICE}/{method}")
            for method in [*METHODS, "None"]
            for kind in KINDS
        }

    def call(self, number: int) -> None:
        """Make so many calls, many at a time; no exception of ours may end one."""
        for begun in range(0, number, AT_ONCE):
            calls = [self._begin() for _ in range(min(AT_ONCE, number - begun))]
            for method, kind, call in calls:
                if kind.endswith("stream"):
                    with contextlib.suppress(grpc.RpcError):
                        for _ in call:
                            pass
                code = call.code()  # waits
                self.codes[method, code.name] += 1
                if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    assert "DecodeError" in call.details() or "deserializ" in call.details(), call.details()

    def _begin(self) -> tuple[str, str, Any]:
        chance = self._chance
        method = chance.choice(list(METHODS))
        data = _mutated(chance, _valid_request(chance, method).SerializeToString())
        kind = "unary_stream" if method in STREAMING else "unary_unary"
        if chance.random() < 0.05:
            kind = chance.choice(KINDS)
            method = chance.choice([method, "None"])
        argument = iter([data, data]) if kind.startswith("stream") else data
        call = self._calls[method, kind]
        begin = call.future if kind.endswith("unary") else call
        return method, kind, begin(argument, timeout=STREAM_SECONDS if kind.endswith("stream") else CALL_SECONDS)
