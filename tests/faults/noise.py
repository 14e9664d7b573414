"""Connections of clients that speak no gRPC, or say nothing."""

from __future__ import annotations

import random
import selectors
import socket
import time

from .frames import OPENING, PREFACE

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


def connect(port: int, data: bytes, count: int) -> list[socket.socket]:
    """Open so many connections and send `data` on each; the server may have hung up by then."""
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
