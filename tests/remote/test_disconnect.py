"""`disconnect` beside what other threads or tasks are waiting for."""

from __future__ import annotations

import pytest
from support.waiting import Call, until

from stiqueue import Closed, SQClient, SQServer

from .conftest import Connect

ROUNDS = 20


def consumers(other: SQClient) -> int:
    return other.counts().consumers


@pytest.mark.parametrize("timeout", [0.0, 0.001, 0.05])
def test_a_short_deq_returns_none(connect: Connect, server: SQServer, timeout: float) -> None:
    client = connect(server.port)
    for _ in range(ROUNDS):
        waiting = Call(client.deq, timeout=timeout)
        client.disconnect()
        assert waiting.result() is None


def test_a_deq_waits_until_its_timeout(connect: Connect, server: SQServer, client: SQClient) -> None:
    mine = connect(server.port)
    waiting = Call(mine.deq, timeout=20)
    until(lambda: consumers(client), 1)
    for _ in range(3):
        mine.disconnect()
        until(lambda: consumers(client), 1)
    client.enq("a")
    assert waiting.result() == b"a"
    mine.close()


def test_a_deq_whose_server_timeout_is_short_goes_on(connect: Connect, server: SQServer, client: SQClient) -> None:
    mine = connect(server.port, timeout=0.01)
    waiting = Call(mine.deq)
    until(lambda: consumers(client), 1)
    for _ in range(3):
        mine.disconnect()
        until(lambda: consumers(client), 1)
    client.enq("a")
    assert waiting.result() == b"a"


def test_a_loop_goes_on(connect: Connect, server: SQServer, client: SQClient) -> None:
    mine = connect(server.port, timeout=0.01)
    loop = mine.consume()
    waiting = Call(next, loop)
    until(lambda: consumers(client), 1)
    for _ in range(3):
        mine.disconnect()
        until(lambda: consumers(client), 1)
    client.enq("a")
    assert waiting.result() == b"a"
    loop.close()


def test_closing_is_told_apart(connect: Connect, server: SQServer, client: SQClient) -> None:
    mine = connect(server.port)
    waiting = Call(mine.deq, timeout=20)
    until(lambda: consumers(client), 1)
    mine.close()
    with pytest.raises(Closed):
        waiting.result()
