"""Writes down what a client on the bare stub does with its messages; the same for threads and for asyncio."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import grpc

from stiqueue.v1 import queue_pb2 as pb

from .recorder import Recorder, read_body

CHANNEL_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),  # what an attempt to connect may take on a busy machine
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.keepalive_time_ms", 2_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.http2.ping_timeout_ms", 2_000),
    ("grpc.http2.max_pings_without_data", 0),
]
"""One connection a channel, back soon after the server, and a stopped server is noticed within 4 s."""

_MAYBE_DONE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.INTERNAL,
)


def outcome_of(error: grpc.RpcError) -> str:
    """Return ``fail`` when the server has surely refused the call, else ``unknown``."""
    return "unknown" if error.code() in _MAYBE_DONE else "fail"


class Held(NamedTuple):
    """A delivery that its consumer has not settled."""

    value: str
    lease: str
    id: int
    attempt: int


class Notebook:
    """Writes the calls of one client to its recorder, in the recorder's words."""

    def __init__(self, recorder: Recorder, queue: str) -> None:
        """Write to `recorder` about messages of `queue`."""
        self.recorder = recorder
        self.queue = queue

    def enqueues(self, values: Iterable[str], outcome: str, safe: bool = True) -> None:
        """Write ``invoke`` or the answer of an `Enq`; `safe` when it has a request id."""
        self.recorder.write_all("enq", [(value, {"rid": int(safe)}) for value in values], outcome)

    def opens(
        self, stream: str, via: str = "", ack_timeout: float = 0.0, no_ack: bool = False, reopens: bool = False
    ) -> None:
        """Write that `stream` is about to be opened; `reopens` when its client will do so again by itself."""
        facts = {"ack_timeout": ack_timeout, "no_ack": int(no_ack), "reopens": int(reopens)}
        self.recorder.write("stream", stream, "open", via=via, **facts)

    def ends(self, stream: str, how: str) -> None:
        """Write that `stream` has ended, or with `how` ``cancel``, that it is about to be cancelled."""
        self.recorder.write("stream", stream, "end", how=how)

    def receives(self, messages: Iterable[pb.Message], stream: str) -> list[Held]:
        """Write a delivery; return what is now held."""
        held = [Held(read_body(each.body), each.lease_id, each.id, each.attempt) for each in messages]
        self.recorder.write_all(
            "deq",
            [
                (each.value, {"queue": self.queue, "id": each.id, "lease": each.lease, "attempt": each.attempt} | where)
                for where in [{"stream": stream}]
                for each in held
            ],
            "ok",
        )
        return held

    def settles(self, op: str, held: Sequence[Held], outcome: str, stale: Iterable[str] = ()) -> None:
        """Write ``invoke`` or the answer of an `Ack`; `op` is ``ack`` or ``nack``, `stale` are the stale leases."""
        late = set(stale)
        for answer, some in (
            (outcome, [each for each in held if each.lease not in late]),
            ("stale", [each for each in held if each.lease in late]),
        ):
            if some:
                self.recorder.write_all(op, [(each.value, {"lease": each.lease}) for each in some], answer)
