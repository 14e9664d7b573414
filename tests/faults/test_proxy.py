"""The proxy does what it says, seen from both ends of plain sockets and of gRPC calls."""

from __future__ import annotations

import select
import socket
import threading
import time
from collections.abc import Iterator
from concurrent import futures

import grpc
import pytest

from .frames import PREFACE, FrameScanner
from .notebook import CHANNEL_OPTIONS
from .processes import wait_until
from .proxy import Direction, Mode, Proxy

SECONDS = 5.0


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(SECONDS)
        yield server


@pytest.fixture
def proxy(listener: socket.socket) -> Iterator[Proxy]:
    with Proxy(f"127.0.0.1:{listener.getsockname()[1]}") as proxy:
        yield proxy


@pytest.fixture
def ends(listener: socket.socket, proxy: Proxy) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Yield the client's and the server's end of a connection through the proxy."""
    host, _, port = proxy.target.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as client, listener.accept()[0] as server:
        server.settimeout(SECONDS)
        yield client, server


def silent(end: socket.socket, seconds: float = 0.2) -> bool:
    """Return whether nothing arrives."""
    end.settimeout(seconds)
    try:
        return not end.recv(1)
    except TimeoutError:
        return True
    finally:
        end.settimeout(SECONDS)


def test_passes_both_ways_and_the_end(ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"ping")
    assert server.recv(10) == b"ping"
    server.sendall(b"pong")
    assert client.recv(10) == b"pong"
    client.shutdown(socket.SHUT_WR)
    assert server.recv(10) == b""
    server.sendall(b"still there")
    assert client.recv(20) == b"still there"


def test_drops_one_direction(proxy: Proxy, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    proxy.set(Mode.DROP, Direction.DOWN)
    server.sendall(b"lost")
    client.sendall(b"ping")
    assert server.recv(10) == b"ping"
    assert silent(client)
    assert proxy.dropped == 4
    proxy.set(Mode.PASS)
    server.sendall(b"pong")
    assert client.recv(10) == b"pong"


def test_stalls_until_the_sender_cannot_send(proxy: Proxy, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    proxy.set(Mode.STALL)
    client.settimeout(0.3)
    with pytest.raises(TimeoutError):
        client.sendall(bytes([255]) * (64 << 20))  # few frames, all of them large
    assert silent(server)
    proxy.set(Mode.PASS)
    assert server.recv(10) == bytes([255]) * 10


def test_delays(proxy: Proxy, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    proxy.set(Mode.DELAY, delay=0.3)
    begin = time.monotonic()
    client.sendall(b"ping")
    assert server.recv(10) == b"ping"
    assert 0.3 <= time.monotonic() - begin < SECONDS


def test_resets(proxy: Proxy, ends: tuple[socket.socket, socket.socket]) -> None:
    client, server = ends
    client.sendall(b"ping")
    assert server.recv(10) == b"ping"
    assert proxy.reset() == 1
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(10)


def test_heals_with_new_connections_alone(
    listener: socket.socket, proxy: Proxy, ends: tuple[socket.socket, socket.socket]
) -> None:
    """Nothing may follow bytes that were lost."""
    client, server = ends
    proxy.set(Mode.DROP)
    client.sendall(b"lost")
    wait_until(lambda: proxy.dropped == 4, SECONDS, "bytes were dropped")
    assert proxy.open == 1
    proxy.heal()
    for end in (client, server):
        with pytest.raises(ConnectionResetError):
            end.recv(10)
    host, _, port = proxy.target.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as again, listener.accept()[0] as accepted:
        again.sendall(b"ping")
        accepted.settimeout(SECONDS)
        assert accepted.recv(10) == b"ping"


def test_finds_frames_however_they_are_cut() -> None:
    frames = [(4, 0, 0, b""), (1, 5, 3, b"x" * 40), (0, 1, 3, b"body"), (3, 0, 5, b"0000")]
    data = PREFACE + b"".join(
        len(body).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big") + body
        for kind, flags, number, body in frames
    )
    for size in (1, 2, 7, 9, 24, len(data)):
        scanner = FrameScanner(from_client=True)
        found = [frame for at in range(0, len(data), size) for frame in scanner.feed(data[at : at + size])]
        assert found == [(kind, flags, number) for kind, flags, number, _ in frames], size


def test_loses_the_answer_of_one_call() -> None:
    """The server has done what was asked, and the client does not know; the next call is answered again."""
    asked: list[bytes] = []
    entered, leave = threading.Event(), threading.Event()

    def echo(request: bytes, context: grpc.ServicerContext) -> bytes:
        asked.append(request)
        if request == b"slow":
            entered.set()
            assert leave.wait(SECONDS)
        return request

    handler = grpc.method_handlers_generic_handler("Test", {"Echo": grpc.unary_unary_rpc_method_handler(echo)})
    server = grpc.server(futures.ThreadPoolExecutor(2), options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with Proxy(f"127.0.0.1:{port}") as proxy, grpc.insecure_channel(proxy.target, CHANNEL_OPTIONS) as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary("/Test/Echo")
        assert call(b"1", timeout=SECONDS) == b"1"
        before = call.future(b"slow", timeout=SECONDS)
        assert entered.wait(SECONDS)
        proxy.lose_next_answer()
        with pytest.raises(grpc.RpcError) as error:
            call(b"2", timeout=SECONDS)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        assert proxy.answer_lost.is_set()
        assert proxy.dropped > 0
        assert before.exception(SECONDS) is not None
        leave.set()

        def answered() -> bool:
            try:
                return call(b"3", timeout=SECONDS, wait_for_ready=True) == b"3"
            except grpc.RpcError as error:  # gRPC has not yet put away the connection that was cut
                assert error.code() == grpc.StatusCode.UNAVAILABLE  # noqa: PT017
                return False

        wait_until(answered, SECONDS, "an answer")
        assert asked == [b"1", b"slow", b"2", b"3"]
    server.stop(0).wait(SECONDS)


def test_several_targets_take_turns_and_one_that_is_down_is_passed_over() -> None:
    """It is a balancer then."""
    names = (b"a", b"b")
    listeners = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    dead = socket.create_server(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in (*listeners, dead)]
    dead.close()
    with Proxy(*addresses) as proxy:
        came = []
        for _ in range(4):
            host, _, port = proxy.target.rpartition(":")
            with socket.create_connection((host, int(port)), timeout=5) as client:
                ready, _, _ = select.select(listeners, [], [], 5)
                accepted, _ = ready[0].accept()
                with accepted:
                    accepted.sendall(names[listeners.index(ready[0])])
                    came.append(client.recv(1))
    for listener in listeners:
        listener.close()
    assert sorted(came) == [b"a", b"a", b"b", b"b"]
