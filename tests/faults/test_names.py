"""Hostile names, and very many of them: fault 45."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from stiqueue.v1 import queue_pb2 as pb

from .run import Run

SECONDS = 10.0
NAMES = ["n" * 10_000, "a/b", "/etc/passwd", "..", "../..", "a\nb", "a\r\nb", "a\0b", "\N{PARTY POPPER}", "\x1b[31m"]

AT_ONCE = 50
"""Well below what one connection may have at a time: gRPC refuses a call while too many are only about to end."""


def queues(run: Run, number: int, limit: int) -> None:
    stub = run.stub()
    codes: Counter[str] = Counter()
    texts = set()
    for begin in range(0, number, AT_ONCE):
        calls = [
            stub.Enq.future(pb.EnqRequest(queue=f"q{each}", bodies=[b"a"]), timeout=SECONDS)
            for each in range(begin, min(number, begin + AT_ONCE))
        ]
        for call in calls:
            codes[call.code().name] += 1
            texts.add(call.details())
    assert codes == {"OK": limit, "RESOURCE_EXHAUSTED": number - limit}
    assert all(f"{limit:,}" in text and "max_queues" in text for text in texts if text)


def test_45_hostile_names(run: Run, tmp_path: Path) -> None:
    """Names of paths, control characters and 10 KB, as queue, consumer, header, request id and reason.

    No file appears beside the data file, each line of the log is one line, and the server serves.
    """
    data = tmp_path / "data"
    data.mkdir()
    server = run.server("--debug", environment={"STIQUEUE_DATA": str(data / "stiqueue.db")})
    stub = run.stub()
    for name in NAMES:
        requests: list[Any] = [
            lambda name=name: stub.Enq(pb.EnqRequest(queue=name, bodies=[b"a"]), timeout=SECONDS),
            lambda name=name: stub.Enq(
                pb.EnqRequest(queue="q", bodies=[name.encode()], request_id=name[:32], headers={name[:32]: name[:32]}),
                timeout=SECONDS,
            ),
            lambda name=name: [
                stub.Ack(
                    pb.AckRequest(lease_ids=[each.lease_id], outcome=pb.OUTCOME_DEAD_LETTER, reason=name[:32]),
                    timeout=SECONDS,
                )
                for response in stub.Deq(
                    pb.DeqRequest(queue="q", max_messages=1, consumer=name[:32], wait=Duration()), timeout=SECONDS
                )
                for each in response.messages
            ],
            lambda name=name: list(stub.Peek(pb.PeekRequest(queue=name), timeout=SECONDS)),
            lambda name=name: stub.Cnt(pb.CntRequest(queues=[name]), timeout=SECONDS),
        ]
        for request in requests:
            try:
                request()
            except grpc.RpcError as error:
                call: Any = error
                assert call.code() is grpc.StatusCode.INVALID_ARGUMENT, call.details()
                assert len(call.details()) < 1_000
    assert run.counts("q.dead").ready == len(NAMES)
    assert {path.name for path in data.iterdir()} <= {f"stiqueue.db{end}" for end in ENDS}
    assert all(re.match(r"\d{4}-\d\d-\d\d .* (DEBUG|INFO|WARNING) ", line) for line in server.log.splitlines())
    assert "\x1b" not in server.log


ENDS = ("", "-wal", "-shm", "-lock", "-mark", "-reserve")


def test_45_many_queues(run: Run) -> None:
    """2,000 queues where 500 are allowed: the others are refused, naming the limit."""
    run.server("--max-queues", "500")
    queues(run, 2_000, 500)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_45_30_000_queues(run: Run) -> None:
    """By one client, where by default 10,000 are allowed."""
    run.server()
    queues(run, 30_000, 10_000)
