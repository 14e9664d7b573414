"""The clients when the server is away, comes back, or its answer is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.proxy import Mode, Proxy
from support.ports import free_port
from support.waiting import Call, until

from stiqueue import Closed, InvalidRequest, SQClient, SQServer, State, Unavailable
from stiqueue.client import backoff

from .conftest import Connect

CALLS: dict[str, Callable[[Any], object]] = {
    "enq": lambda client: client.enq("a"),
    "enq_many": lambda client: client.enq_many(["a"]),
    "deq": lambda client: client.deq(),
    "deq with a timeout": lambda client: client.deq(timeout=0.3),
    "consume": lambda client: next(iter(client.consume())),
    "cnt": lambda client: client.cnt(),
    "queues": lambda client: client.queues(),
    "peek": lambda client: client.peek(),
    "purge": lambda client: client.purge(),
}


@pytest.fixture
def absent() -> int:
    """A port at which a server was, and is no longer."""
    port = free_port()
    with SQServer(port=port):
        return port


@pytest.mark.scenario("server stays away")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_every_call_gives_up_after_its_timeout(connect: Connect, absent: int, call: Callable[[Any], object]) -> None:
    with connect(absent, timeout=0.3) as client, pytest.raises(Unavailable) as failed:
        call(client)
    assert str(absent) in str(failed.value) or "connect" in str(failed.value).lower()


@pytest.mark.slow
@pytest.mark.scenario("server stays away")
@pytest.mark.parametrize("call", ["enq", "enq_many", "deq", "consume", "cnt", "purge"])
def test_every_call_waits_for_a_server_that_comes_in_time(connect: Connect, absent: int, call: str) -> None:
    with connect(absent, timeout=20) as client:
        waiting = Call(CALLS[call], client)
        assert not waiting.is_over(0.2)
        with SQServer(port=absent), SQClient(port=absent) as other:
            if call in ("deq", "consume"):
                other.enq("a")
            waiting.result()


@pytest.mark.scenario("server stays away")
def test_a_call_may_have_a_timeout_of_its_own(connect: Connect, absent: int) -> None:
    with connect(absent, timeout=3600) as client:
        for call in client.cnt, client.counts, client.queues, client.peek, client.peek_messages:
            with pytest.raises(Unavailable):
                call(timeout=0.1)
        with pytest.raises(Unavailable):
            client.enq("a", timeout=0.1)


@pytest.mark.scenario("server stays away")
def test_closing_ends_a_call_that_waits_for_the_server(connect: Connect, absent: int) -> None:
    client = connect(absent, timeout=3600)
    waiting = Call(client.enq, "a")
    assert not waiting.is_over(0.1)
    client.close()
    assert waiting.is_over(20)


@pytest.mark.scenario("server stays away")
@pytest.mark.parametrize("call", ["enq", "deq", "consume", "cnt"])
def test_who_waits_for_long_is_told_why(
    connect: Connect, absent: int, call: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(backoff, "SILENT_SECONDS", 0.2)
    client = connect(absent, timeout=3600)
    waiting = Call(CALLS[call], client)
    until(lambda: [record.levelname for record in caplog.records], ["WARNING"])
    assert not waiting.is_over(0.2)
    client.close()
    with pytest.raises(Closed):
        waiting.result()
    (text,) = caplog.messages
    assert "trying again" in text
    assert "onnect" in text, "it says why"


@pytest.mark.parametrize("port", [0, -1, 99_999, "x", None])
def test_a_port_that_cannot_be_is_refused(connect: Connect, port: Any) -> None:
    with pytest.raises(InvalidRequest, match="port"):
        connect(port)


def test_bad_input_is_refused_without_a_server(connect: Connect, absent: int) -> None:
    with connect(absent, timeout=3600) as client, pytest.raises(InvalidRequest):
        client.enq("a", priority=256)


def test_a_client_that_was_never_used_needs_no_server(connect: Connect, absent: int) -> None:
    connect(absent).close()
    connect(absent).disconnect()
    with connect(absent):
        pass


@pytest.mark.slow
@pytest.mark.scenario("server restarts")
def test_a_deq_that_waits_outlives_many_restarts(connect: Connect) -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
    with connect(port) as client, SQClient(port=port) as other:
        waiting = Call(client.deq)
        for _ in range(3):
            with SQServer(port=port):
                until(lambda: other.counts().consumers, 1)
        assert not waiting.is_over()
        with SQServer(port=port):
            other.enq("a")
            assert waiting.result() == b"a"


@pytest.mark.scenario("server restarts")
def test_a_loop_outlives_a_restart(connect: Connect) -> None:
    with SQServer(port=free_port()) as server, connect(server.port) as client, SQClient(port=server.port) as other:
        loop = client.consume(prefetch=3)
        other.enq_many(list("abc"))
        assert next(loop) == b"a"
        server.stop()
        with SQServer(port=server.port):
            waiting = Call(next, loop)
            other.enq("d")
            found = [waiting.result()]
            while found[-1] != b"d":
                found.append(next(loop))
            loop.close()  # type: ignore[attr-defined]


@pytest.mark.scenario("server restarts")
def test_what_is_acked_after_a_restart_is_stale(connect: Connect) -> None:
    with SQServer(port=free_port()) as server, connect(server.port) as client:
        client.enq("a")
        message = client.deq()
        assert message is not None
        server.stop()
        with SQServer(port=server.port):
            assert message.ack() is False


@pytest.mark.slow
@pytest.mark.scenario("server restarts")
def test_what_was_held_during_a_restart_comes_again_from_a_data_file(
    connect: Connect, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = str(tmp_path_factory.mktemp("data") / "stiqueue.db")
    with SQServer(port=free_port(), data=data) as server, connect(server.port) as client:
        client.enq_many(list("ab"))
        message = client.deq()
        assert message == b"a"
        server.stop()
        with SQServer(port=server.port, data=data):
            assert message.ack() is False
            again = client.deq()
            assert again is not None
            assert (again, again.attempt) == (b"a", 2)


# -- a network that fails ---------------------------------------------------------------------------------------------


@pytest.fixture
def proxy(server: SQServer) -> Iterator[Proxy]:
    """A proxy before `server`."""
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture
def far(connect: Connect, proxy: Proxy) -> Any:
    """A client that reaches `server` through `proxy`."""
    return connect(int(proxy.target.rpartition(":")[2]), timeout=20)


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_lost_reply_never_enqueues_twice(proxy: Proxy, far: Any, client: SQClient) -> None:
    far.cnt()
    for number in range(1, 4):
        proxy.lose_next_answer()
        assert far.enq(str(number)) == number
        assert proxy.answer_lost.is_set()
    assert client.peek() == b"1,2,3"


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_lost_reply_to_a_batch_never_enqueues_twice(proxy: Proxy, far: Any, client: SQClient) -> None:
    far.cnt()
    proxy.lose_next_answer()
    assert far.enq_many(map(str, range(2_500))) == 2_500
    assert proxy.answer_lost.is_set()
    assert client.peek() == b",".join(str(number).encode() for number in range(2_500))


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_after_a_lost_reply_to_an_ack_the_message_stays_acked(proxy: Proxy, far: Any, client: SQClient) -> None:
    client.enq("a")
    message = far.deq()
    assert message is not None
    proxy.lose_next_answer()
    message.ack()  # whether it was the first or the second that took effect, it cannot know
    assert proxy.answer_lost.is_set()
    assert client.counts().acked == 1
    assert client.peek_messages(state=State.ALL) == []


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_waiting_deq_outlives_a_reset_of_its_connection(proxy: Proxy, far: Any, client: SQClient) -> None:
    waiting = Call(far.deq)
    for _ in range(3):
        until(lambda: client.counts().consumers, 1)
        proxy.reset()
    until(lambda: client.counts().consumers, 1)
    client.enq("a")
    assert waiting.result() == b"a"


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_what_was_held_comes_back_when_the_connection_is_reset(proxy: Proxy, far: Any, client: SQClient) -> None:
    client.enq_many(list("ab"))
    message = far.deq()
    assert message == b"a"
    proxy.reset()
    until(client.peek, b"a,b")
    assert message.ack() is False


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_calls_wait_for_a_network_that_comes_back(proxy: Proxy, far: Any, client: SQClient) -> None:
    far.cnt()
    proxy.set(Mode.DROP)
    calling = Call(far.enq, "a")
    assert not calling.is_over(0.2)
    proxy.reset()
    proxy.set(Mode.PASS)
    calling.result()
    assert client.peek() == b"a"


@pytest.mark.slow
@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_slow_network_can_be_connected_to(proxy: Proxy, far: Any) -> None:
    """The server's first word comes after 1.2 s."""
    proxy.set(Mode.DELAY, delay=0.6)
    assert far.enq("a") == 1
    assert proxy.connections == 1
