"""Connections that are closed after any byte: fault 61."""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.bridge import BridgedClient, EventLoop
from support.waiting import PATIENCE, Call, until

from stiqueue import SQClient, SQServer

from .proxy import Direction, Proxy

EXCHANGE_BYTES = 400
"""More than any exchange here has in one direction; a cut beyond its end does not happen."""
STEP = 29
"""Which bytes CI tries; the soak tries every one."""
SEEDS = range(3)

every_byte = pytest.mark.parametrize("step", [STEP, pytest.param(1, marks=pytest.mark.soak)])
both_ways = pytest.mark.parametrize("direction", list(Direction), ids=lambda direction: direction.name.lower())


@pytest.fixture
def proxy(server: SQServer) -> Iterator[Proxy]:
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture(params=["SQClient", "AsyncSQClient"])
def ours(request: pytest.FixtureRequest, proxy: Proxy) -> Iterator[Any]:
    """A client of either kind, through the proxy."""
    port = int(proxy.target.rpartition(":")[2])
    if request.param == "SQClient":
        with SQClient(port=port, timeout=PATIENCE) as client:
            yield client
        return
    loop = EventLoop()
    bridged = BridgedClient(loop, port=port, timeout=PATIENCE)
    try:
        yield bridged
    finally:
        bridged.close()
        loop.close()


def cuts(proxy: Proxy, direction: Direction, step: int) -> Iterator[int]:
    """Arm the proxy for one byte after the other, until the exchange is shorter."""
    count, happened = 0, 0
    while count < EXCHANGE_BYTES:
        proxy.cut_after(count, direction)
        yield count
        if not proxy.cut.is_set():
            break
        count, happened = count + step, happened + 1
    print(f"{happened} cuts, of an exchange of up to {count} bytes")
    assert happened > 30 // step, "the cuts hit nothing"


@every_byte
@both_ways
def test_61_enq_is_cut_after_every_byte(
    ours: Any, client: SQClient, proxy: Proxy, direction: Direction, step: int
) -> None:
    """Each message is confirmed, and there once."""
    ours.cnt()
    confirmed = {ours.enq(f"cut {count}"): f"cut {count}".encode() for count in cuts(proxy, direction, step)}
    assert {message.id: bytes(message) for message in client.peek_messages()} == confirmed


@every_byte
@both_ways
def test_61_deq_and_ack_are_cut_after_every_byte(
    ours: Any, client: SQClient, proxy: Proxy, direction: Direction, step: int
) -> None:
    """Nothing is lost, and nothing whose ack was confirmed comes again."""
    client.enq_many([str(number) for number in range(EXCHANGE_BYTES)])
    acked: Counter[bytes] = Counter()
    ours.cnt()
    for _ in cuts(proxy, direction, step):
        message = ours.deq(timeout=PATIENCE)
        assert acked[bytes(message)] == 0, "delivered again after its ack was confirmed"
        if message.ack():
            acked[bytes(message)] += 1
    while (left := client.counts()).ready or left.leased:
        message = ours.deq(timeout=PATIENCE)
        assert acked[bytes(message)] == 0, "delivered again after its ack was confirmed"
        acked[bytes(message)] += message.ack()
    assert client.counts().acked == EXCHANGE_BYTES
    assert set(acked.values()) == {1}


@pytest.mark.parametrize("seed", SEEDS)
def test_61_random_cuts_under_load(client: SQClient, proxy: Proxy, seed: int) -> None:
    """Four threads enqueue, dequeue and ack through 30 cuts: nothing lost, nothing enqueued twice."""
    choice = random.Random(seed)
    enough = threading.Event()

    def work(ours: SQClient, name: int) -> tuple[list[bytes], list[bytes]]:
        """Return the bodies that were confirmed, and those that were acked."""
        confirmed, acked = [], []
        while not enough.is_set():
            body = f"{name}-{len(confirmed)}".encode()
            ours.enq(body)
            confirmed.append(body)
            message = ours.deq(timeout=PATIENCE)
            assert message is not None
            if message.ack():
                acked.append(bytes(message))
        return confirmed, acked

    with SQClient(port=int(proxy.target.rpartition(":")[2]), timeout=PATIENCE) as ours:
        calls = [Call(work, ours, name) for name in range(4)]
        for _ in range(30):
            proxy.cut_after(choice.randrange(5_000), choice.choice(list(Direction)))
            assert proxy.cut.wait(PATIENCE)
        enough.set()
        done = [call.result() for call in calls]
    until(lambda: client.counts().leased, 0)
    left = [bytes(message) for message in client.peek_messages()]
    confirmed = Counter(body for each, _ in done for body in each)
    acked = Counter(body for _, each in done for body in each)
    counts = client.counts()
    print(f"{len(confirmed)} confirmed, {counts.requeued} given back, {len(left)} left")
    assert counts.enqueued == confirmed.total() == len(confirmed), "doubled"
    assert acked.keys().isdisjoint(left), "acked, and delivered again"
    assert max(acked.values()) == 1, "handed out after its ack was confirmed"
    assert counts.acked + len(left) == len(confirmed), "lost"
