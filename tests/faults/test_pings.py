"""Clients that ping: those that do it well are never cut, those that do it too often are. Fault 8."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest
from support.waiting import Call

from stiqueue import SQClient

from .frames import PREFACE
from .goodness import GoodClient
from .holding import PLAIN, Holder
from .proxy import Proxy
from .run import Run

LONG_SECONDS = 30.0
SHORT_SECONDS = 6.0
"""Long enough for pings every second to be too many, if they were: gRPC forgives two."""
CUT_SECONDS = 20.0
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
PING = b"\0\0\x08\x06\0\0\0\0\0" + b"hastily!"


def pinging(milliseconds: int) -> list[tuple[str, int]]:
    """Return the options of a client that pings so often, also when it has nothing to say."""
    return [
        *PLAIN,
        ("grpc.keepalive_time_ms", milliseconds),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


POLITE = {
    "by-default": PLAIN,
    "every-second": pinging(1_000),
    "as-often-as-grpc-lets-it": pinging(200),  # which is every second, but from ping to ping and not from its answer
    "every-5-s": pinging(5_000),
}


@contextlib.contextmanager
def idle_client(port: int) -> Iterator[None]:
    """Let ours wait for a message that does not come."""
    with SQClient(port=port) as client:
        waiting = Call(client.deq, queue="none")
        yield
        assert not waiting.is_over()
        client.close()
        assert waiting.is_over(CUT_SECONDS)


def ping_hastily(port: int, every: float) -> tuple[float, bytes]:
    """Ping again and again; return after how many seconds the server hangs up, and what it said last."""
    began, said = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", port), CUT_SECONDS) as connection:
        connection.sendall(PREFACE + SETTINGS)
        connection.settimeout(every)
        next_ping = time.monotonic()
        while time.monotonic() - began < CUT_SECONDS:
            with contextlib.suppress(TimeoutError, ConnectionError):
                if not (data := connection.recv(1 << 16)):
                    break
                said = (said + data)[-1_000:]
            if time.monotonic() >= next_ping:
                with contextlib.suppress(ConnectionError):
                    connection.sendall(PING)
                next_ping += every
    return time.monotonic() - began, said


def stay_idle(run: Run, seconds: float) -> None:
    """Let well-behaved clients of all kinds be idle; none is cut. One that is not well-behaved is."""
    server = run.server()
    with contextlib.ExitStack() as stack:
        proxy = stack.enter_context(Proxy(server.target))
        stack.enter_context(idle_client(int(proxy.target.rpartition(":")[2])))
        polite = {
            name: stack.enter_context(Holder(run, name, target=proxy.target, via=proxy.name, options=options))
            for name, options in POLITE.items()
        }
        run.wait_for_counts(60, "none", consumers=1)
        connections = proxy.connections
        good = stack.enter_context(GoodClient(server.target))
        began = time.monotonic()
        after, said = ping_hastily(server.port, 0.2)
        print(f"every 0.2 s: cut after {after:.1f} s")
        assert b"too_many_pings" in said
        for name, holder in polite.items():
            left = began + seconds - time.monotonic()
            assert not holder.has_ended.wait(max(0.0, left)), f"{name} was cut: {holder.how}"
        assert proxy.connections == connections, "somebody was cut and has come back"
        run.fill(len(polite))
        for holder in polite.values():
            holder.wait_holding(1)
        assert good.failures == []


@pytest.mark.slow
def test_08_too_many_pings(run: Run) -> None:
    """Pings every 200 ms are cut with "too_many_pings"; those every second are not, nor is our client."""
    stay_idle(run, SHORT_SECONDS)


@pytest.mark.soak
def test_08_idle_for_30_s(run: Run) -> None:
    """The same for 30 s, in which our client pings six times."""
    stay_idle(run, LONG_SECONDS)
