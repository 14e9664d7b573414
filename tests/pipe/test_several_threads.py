"""What clients gather to send, while other threads add to it without a lock."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import PATIENCE, Call

from stiqueue.client.calls.outbox import Outbox
from stiqueue.client.calls.parcel import Item, tell
from stiqueue.errors import Unavailable
from stiqueue.v1 import pipe_pb2 as pb
from stiqueue.v1 import queue_pb2

ACKS, ITEMS, THREADS = 200_000, 20_000, 4


@pytest.fixture(autouse=True)
def _threads_change_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.slow
def test_every_ack_is_sent() -> None:
    box = Outbox()
    pipe = box.open()
    rung = threading.Semaphore(0)
    acked: list[str] = []

    def answer() -> None:
        while len(acked) < ACKS and rung.acquire(timeout=PATIENCE):
            while (request := box.take(pipe)) is not None:
                acked.extend(request.ack.lease_ids)
                tell(box.answer(pb.PipeResponse(number=request.number, ack=queue_pb2.AckResponse()), None))

    def ack(first: int) -> None:
        for number in range(first, ACKS, THREADS):
            if box.put_ack(str(number), lambda lease_ids, stale: None):
                rung.release()

    answering = Call(answer)
    for acking in [Call(ack, first) for first in range(THREADS)]:
        acking.result()
    answering.result()
    assert sorted(acked) == sorted(map(str, range(ACKS)))


def test_every_item_is_taken_out_once() -> None:
    box = Outbox()
    taken: list[Any] = []
    is_over = threading.Event()

    def take() -> None:
        while not is_over.is_set():
            box.is_awaited()
            tell(box.lose(Unavailable("lost")))
            taken.extend(item for parcel in box.take_all() for item in parcel.items)

    taking = Call(take)
    for number in range(ITEMS):
        request = pb.PipeRequest(enq=queue_pb2.EnqRequest(bodies=[str(number).encode()]))
        box.put(Item(request, None, lambda response, place, error: None))
    is_over.set()
    taking.result()
    taken.extend(item for parcel in box.take_all() for item in parcel.items)
    assert [int(item.request.enq.bodies[0]) for item in taken] == list(range(ITEMS))
