"""Connections that let the console wait."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from support.waiting import PATIENCE

from stiqueue.web import connection
from web.console import Console

HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
FORM = b"POST /login HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\nContent-Length: 100\r\n\r\ntoken="


@pytest.fixture
def connected(console: Console) -> Iterator[socket.socket]:
    """A connection to a console."""
    with socket.create_connection(("127.0.0.1", console.port), PATIENCE) as connected:
        yield connected


@pytest.fixture
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    soon(monkeypatch)


def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let consoles from now on not wait for long."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.3)
    monkeypatch.setattr(connection, "BODY_SECONDS", 0.3)


def rest(connected: socket.socket) -> bytes:
    """Read until the console closes the connection."""
    read = b""
    while part := connected.recv(65_536):
        read += part
    return read


@pytest.mark.usefixtures("_soon")
@pytest.mark.parametrize("sent", [b"", HEAD[:20], FORM], ids=["nothing", "half a head", "half a form"])
def test_a_connection_that_does_not_send_its_request_is_closed(console: Console, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", console.port), PATIENCE) as connected:
        connected.sendall(sent)
        assert rest(connected) == b""


def test_a_connection_that_is_used_no_longer_is_closed(
    connected: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    connected.sendall(HEAD)
    read = b""
    while not read.endswith(b"ok\n"):
        read += connected.recv(65_536)
    soon(monkeypatch)
    connected.sendall(HEAD + HEAD[:20])
    assert rest(connected).count(b"200 OK") == 1


@pytest.mark.usefixtures("_soon")
def test_bytes_one_by_one_do_not_prolong_it(console: Console) -> None:
    with socket.create_connection(("127.0.0.1", console.port), 0.05) as connected:
        closed = False
        for _ in range(10_000):
            try:
                connected.sendall(b"a")
                closed = connected.recv(1) == b""
            except TimeoutError:
                continue
            except ConnectionError:
                closed = True
            break
        assert closed


def test_a_watched_page_stays_open(connected: socket.socket, console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    connected.sendall(HEAD.replace(b"/healthz", b"/live"))
    assert b"200 OK" in connected.recv(65_536)
    soon(monkeypatch)
    with socket.create_connection(("127.0.0.1", console.port), PATIENCE) as other:
        assert rest(other) == b""  # the time is over
    read = b""
    while read.count(b"\n\n") < 3:
        part = connected.recv(65_536)
        assert part
        read += part


@pytest.mark.parametrize("path", ["/live", "/alerts/live", "/status/live", "/queues/jobs/live"])
def test_the_head_of_a_watched_page_is_answered_at_once(console: Console, path: str) -> None:
    answer = console.ask(path, method="HEAD")
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
