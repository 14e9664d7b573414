"""What is no longer leased is not handed out: the buffers of every client."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from faults.proxy import Proxy
from support.acks import Acks
from support.bridge import BridgedClient, EventLoop
from support.waiting import PATIENCE, Call, until

from stiqueue import InvalidRequest, Message, SQClient, SQServer, Worker
from stiqueue.client.base import BaseClient

from .conftest import Place
from .test_deq import take

NUMBER = 12
LATER = 1.5
"""Seconds after which a client knows, too, that a lease is gone: it is late by as much as its first response was."""


def drain(other: BaseClient, number: int) -> None:
    """Take and ack so many messages."""
    for _ in range(number):
        message = other.deq(timeout=PATIENCE)
        assert message is not None
    assert other.ack()
    time.sleep(LATER)


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [2, NUMBER])
def test_a_loop_sees_nothing_whose_lease_has_run_out(place: Place, other: BaseClient, prefetch: int) -> None:
    client = place.client(ack_timeout=1.0)
    other.enq_many(map(str, range(NUMBER)))
    seen: list[bytes] = []
    for message in client.consume(prefetch):
        seen.append(bytes(message))
        if len(seen) == 2:
            message.ack()
            break
        drain(other, NUMBER)
        other.enq("new")
    assert seen == [b"0", b"new"]
    until(lambda: other.counts().acked, NUMBER + 1)


def test_a_loop_goes_on_with_what_is_still_leased(place: Place, other: BaseClient) -> None:
    client = place.client(ack_timeout=60)
    other.enq_many(map(str, range(NUMBER)))
    assert [int(message) for message in client.consume(10, timeout=0)] == list(range(NUMBER))
    assert other.counts().requeued == 0


@pytest.mark.slow
def test_deq_returns_nothing_whose_lease_has_run_out(place: Place, other: BaseClient) -> None:
    client = place.client(ack_timeout=1.0)
    other.enq_many(["a", "b", "c"])
    take(client)
    drain(other, 3)
    assert client.deq(timeout=0) is None
    other.enq("new")
    assert take(client) == b"new"


@pytest.fixture
def near(server: SQServer) -> Iterator[SQClient]:
    """A client without a proxy."""
    with SQClient(port=server.port) as near:
        yield near


@pytest.fixture(params=["threads", "asyncio"])
def cut_off(request: pytest.FixtureRequest, server: SQServer) -> Iterator[tuple[BaseClient, Proxy]]:
    """A client behind a proxy."""
    proxy = Proxy(f"127.0.0.1:{server.port}").start()
    port = int(proxy.target.rpartition(":")[2])
    loop = EventLoop() if request.param == "asyncio" else None
    client: BaseClient = BridgedClient(loop, port=port) if loop else SQClient(port=port)  # type: ignore[assignment]
    yield client, proxy
    client.close()
    if loop:
        loop.close()
    proxy.stop()


def test_a_loop_sees_nothing_of_a_connection_that_was_cut(cut_off: tuple[BaseClient, Proxy], near: SQClient) -> None:
    ours, proxy = cut_off
    near.enq_many(map(str, range(NUMBER)))
    seen: list[bytes] = []
    for message in ours.consume(NUMBER, timeout=0):
        seen.append(bytes(message))
        if len(seen) == 3:
            proxy.reset()
            until(lambda: near.counts().leased, 0)
            acked = near.counts().acked
            drain(near, NUMBER - acked)
            near.enq("new")
    assert seen == [b"0", b"1", b"2", b"new"]


def test_a_worker_begins_nothing_whose_lease_has_run_out(server: SQServer, near: SQClient) -> None:
    begun: list[bytes] = []
    stuck, go_on = threading.Event(), threading.Event()

    def work(message: Message) -> None:
        begun.append(bytes(message))
        stuck.set()
        assert go_on.wait(PATIENCE)

    worker = Worker(work, threads=1, port=server.port, ack_timeout=1.0)
    running = Call(worker.run)
    near.enq_many(["a", "b", "c"])
    assert stuck.wait(PATIENCE)
    drain(near, 3)
    go_on.set()
    near.enq("new")
    until(lambda: begun, [b"a", b"new"])
    worker.stop()
    running.result()


# -- what could not be settled as somebody wanted ---------------------------------------------------------------------


def test_what_could_not_be_settled_by_hand_is_given_back_when_the_loop_goes_on(place: Place, other: BaseClient) -> None:
    client = place.client()
    other.enq_many(["a", "b"])
    seen = []
    for message in client.consume(timeout=0):
        seen.append((bytes(message), message.attempt))
        if message.attempt == 1 and message == b"a":
            with pytest.raises(InvalidRequest):
                message.dead_letter("x" * 1025)
    assert seen == [(b"a", 1), (b"a", 2), (b"b", 1)]
    until(lambda: other.counts().acked, 2)


def test_an_ack_by_hand_that_failed_is_repeated_when_the_loop_goes_on() -> None:
    codes = iter([grpc.StatusCode.PERMISSION_DENIED])
    with (
        SQServer(port=0, interceptors=[Acks(lambda request: next(codes, None))]) as server,
        SQClient(port=server.port) as client,
    ):
        client.enq_many(["a", "b"])
        seen = []
        for message in client.consume(timeout=0):
            if not seen:
                with pytest.raises(Exception, match="PERMISSION_DENIED"):
                    message.ack()
            seen.append((bytes(message), message.attempt))
        assert seen == [(b"a", 1), (b"b", 1)]
        until(lambda: client.counts().acked, 2)
