"""What is no gRPC at all on the port, and connections on which nothing comes: fault 37."""

from __future__ import annotations

import random
import selectors
import socket
import time
from pathlib import Path

import pytest
import trustme

from .frames import OPENING, PREFACE
from .goodness import GoodClient, assert_undisturbed, descriptors, lines_per_second, usual_p99, wait_for_descriptors
from .processes import wait_until
from .run import Run

SECONDS = 10.0
NOISE = random.Random(37).randbytes(64 << 10)
TLS_HELLO = bytes.fromhex("16030100f5010000f10303") + NOISE[:240]
LOUD = {
    "plain": {
        "HTTP/1.1": b"GET / HTTP/1.1\r\nHost: queue\r\n\r\n",
        "64 KiB at random": NOISE,
        "TLS": TLS_HELLO,
        "garbage after the preface": PREFACE + NOISE[:4096],
    },
    "TLS": {"HTTP/1.1": b"GET / HTTP/1.1\r\nHost: queue\r\n\r\n", "plain": OPENING, "random": NOISE},
}
"""What is answered by closing the connection at once."""
SILENT = {
    "plain": {"half a preface": PREFACE[:11], "nothing": b"", "SETTINGS, then nothing": OPENING},
    "TLS": {"nothing": b"", "half a hello": TLS_HELLO[:50]},
}
"""After what nothing follows."""
LOUD_SECONDS = 3.0
"""1 s, and room for a machine that does other work."""
SILENT_SECONDS = 15.0
"""10 s, likewise."""
EACH = 200


def connect(port: int, data: bytes, count: int) -> list[socket.socket]:
    found = []
    for _ in range(count):
        connection = socket.create_connection(("127.0.0.1", port), SECONDS)
        found.append(connection)
        try:
            connection.sendall(data)
        except OSError:
            continue  # closed already
    return found


def wait_closed(connections: list[socket.socket], seconds: float, what: str) -> float:
    """Wait until the other side has closed all; return how long it took, in seconds."""
    began = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for connection in connections:
            selector.register(connection, selectors.EVENT_READ)
        while selector.get_map():
            left = began + seconds - time.monotonic()
            assert left > 0, f"{what}: {len(selector.get_map())} of {len(connections)} are open after {seconds:g} s"
            for key, _ in selector.select(left):
                assert isinstance(key.fileobj, socket.socket)
                try:
                    data = key.fileobj.recv(1 << 16)
                except OSError:
                    data = b""
                if not data:
                    selector.unregister(key.fileobj)
                    key.fileobj.close()
    return time.monotonic() - began


@pytest.fixture
def certificate(tmp_path: Path) -> list[str]:
    """The options of a server with TLS."""
    authority = trustme.CA()
    signed = authority.issue_cert("localhost", "127.0.0.1")
    signed.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "server.pem").chmod(0o600)
    return ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.pem")]


@pytest.mark.timeout(120)
def test_37_garbage_on_the_port(run: Run, certificate: list[str]) -> None:
    """200 connections each of HTTP/1.1, noise, TLS where none is, plain where TLS is, and of those that fall silent.

    The loud are closed within 1 s, the silent within 10 s. The log has at most 10 lines a second, a good client's p99
    at most doubles, and the descriptors are back.
    """
    plain, secure = run.server(), run.server(*certificate, start=False)
    secure.start(ready=False)
    wait_until(lambda: "messages in memory" in secure.log, SECONDS, "a server with TLS")
    servers = {"plain": plain, "TLS": secure}
    before = usual_p99(plain.target)
    open_before = {name: descriptors(server.pid) for name, server in servers.items()}
    lines_before = {name: len(server.log.splitlines()) for name, server in servers.items()}
    began = time.monotonic()
    with GoodClient(plain.target) as good:
        silent = [
            connection
            for name, kinds in SILENT.items()
            for data in kinds.values()
            for connection in connect(servers[name].port, data, EACH)
        ]
        for name, kinds in LOUD.items():
            for what, data in kinds.items():
                took = wait_closed(connect(servers[name].port, data, EACH), LOUD_SECONDS, f"{what} at {name}")
                print(f"{what} at {name}: closed after {took * 1000:.0f} ms")
        took = wait_closed(silent, began + SILENT_SECONDS - time.monotonic(), "silent ones")
    seconds = time.monotonic() - began
    print(f"the silent were closed after {seconds:.1f} s")
    assert_undisturbed(good, before)
    for name, server in servers.items():
        assert lines_per_second(server, lines_before[name], seconds) <= 10
        wait_for_descriptors(server, open_before[name])
