"""The environment's proxy variables: what gRPC makes of `http_proxy` and its kin."""

from __future__ import annotations

import contextlib
import socketserver
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import Call, run_python, until

from stiqueue import Closed, SQServer, Unavailable
from stiqueue.health import is_serving

from .conftest import Connect

FAR = "queue.example.com"
"""A host that is not on this machine; a proxy is to look it up."""


class RefusingProxy(socketserver.ThreadingTCPServer):
    """An HTTP proxy that remembers what it was sent, and refuses it."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def address(self) -> str:
        host, port = self.server_address[:2]
        return f"{host!s}:{port}"


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        with contextlib.suppress(OSError):
            server.heard.append(self.rfile.readline())
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture
def proxy() -> Iterator[RefusingProxy]:
    with RefusingProxy() as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield proxy
        proxy.shutdown()
        thread.join()


each_variable = pytest.mark.parametrize("variable", ["grpc_proxy", "https_proxy", "http_proxy"], indirect=True)


@pytest.fixture
def variable(request: pytest.FixtureRequest, proxy: RefusingProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set one of the variables that gRPC obeys; return its name."""
    for name in ("grpc_proxy", "https_proxy", "http_proxy", "no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    name: str = getattr(request, "param", "http_proxy")
    monkeypatch.setenv(name, f"http://somebody:secret@{proxy.address}")
    return name


@each_variable
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LocalHost"])
def test_a_server_on_this_machine_is_reached_without_the_proxy(
    connect: Connect, server: SQServer, proxy: RefusingProxy, variable: str, host: str
) -> None:
    with connect(server.port, host=host, token="secret", timeout=20) as client:
        client.enq("a")
        assert client.deq() == b"a"
    assert proxy.heard == []


def test_the_health_check_asks_the_server_of_its_machine_without_the_proxy(
    server: SQServer, proxy: RefusingProxy, variable: str
) -> None:
    assert is_serving("127.0.0.1", server.port)
    checked = run_python("from stiqueue.health import main; main()", "--port", server.port)
    assert (checked.stdout, checked.returncode) == ("SERVING\n", 0)
    assert proxy.heard == []


@each_variable
@pytest.mark.parametrize("call", ["enq", "deq", "consume", "cnt", "peek"])
def test_an_error_names_the_proxy_but_not_its_password(
    connect: Connect, proxy: RefusingProxy, variable: str, call: str
) -> None:
    calls: dict[str, Any] = {
        "enq": lambda: client.enq("a"),
        "deq": lambda: client.deq(),
        "consume": lambda: next(iter(client.consume())),
        "cnt": lambda: client.cnt(),
        "peek": lambda: client.peek(),
    }
    with connect(1234, host=FAR, timeout=0.3) as client, pytest.raises(Unavailable) as failed:
        calls[call]()
    assert f"through the proxy {proxy.address} ({variable})" in str(failed.value)
    assert "no_proxy" in str(failed.value)
    assert "secret" not in str(failed.value)


@each_variable
def test_a_server_elsewhere_is_asked_for_through_the_proxy(
    connect: Connect, proxy: RefusingProxy, variable: str
) -> None:
    with connect(1234, host=FAR, timeout=60) as client:
        waiting = Call(client.enq, "a")
        until(lambda: bool(proxy.heard))
        client.close()
        with pytest.raises(Closed):
            waiting.result()
    assert proxy.heard[0].startswith(f"CONNECT {FAR}:1234".encode())


@pytest.mark.parametrize("excluded", [FAR, "example.com", ".example.com", "other, example.com", "no_grpc_proxy"])
def test_a_host_that_is_excluded_is_not_said_to_be_behind_the_proxy(
    connect: Connect, proxy: RefusingProxy, variable: str, excluded: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if excluded == "no_grpc_proxy":
        monkeypatch.setenv("no_grpc_proxy", FAR)
    else:
        monkeypatch.setenv("no_proxy", excluded)
    with connect(1234, host=FAR, timeout=0.3) as client, pytest.raises(Unavailable) as failed:
        client.enq("a")
    assert "proxy" not in str(failed.value)
    assert proxy.heard == []


def test_addresses_are_excluded_by_their_network(
    connect: Connect, proxy: RefusingProxy, variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "10.0.0.0/8,192.0.2.0/24")
    with connect(1, host="192.0.2.1", timeout=0.3) as client, pytest.raises(Unavailable) as failed:
        client.enq("a")
    assert "proxy" not in str(failed.value)
    assert proxy.heard == []


def test_the_health_check_says_through_which_proxy_it_asked(proxy: RefusingProxy, variable: str) -> None:
    checked = run_python("from stiqueue.health import main; main()", "--host", FAR)
    assert checked.returncode == 1
    assert f"NOT SERVING, asked through the proxy {proxy.address} ({variable})" in checked.stdout
