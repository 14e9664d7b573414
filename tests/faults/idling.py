"""Thousands of idle consumers, each on a connection of its own, in one process: raw frames on one selector."""

from __future__ import annotations

import argparse
import selectors
import socket
import time

from stiqueue.v1 import queue_pb2 as pb

from .control import Control
from .frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADER_BYTES,
    HEADERS,
    OPENING,
    PING,
    RST_STREAM,
    SETTINGS,
    call_headers,
    frame,
)
from .notebook import Notebook
from .recorder import Recorder

AT_ONCE = 100
"""Connections that are being opened at a time."""
POLL_SECONDS = 0.2
MESSAGE_PREFIX = 5
"""Bytes before each gRPC message."""


class Idler:
    """One consumer: its connection, and what has come of the frame and of the message that are under way."""

    def __init__(self, name: str, target: tuple[str, int], hello: bytes) -> None:
        """Connect, and ask for messages."""
        self.name = name
        self.socket = socket.create_connection(target, 60)
        self.socket.sendall(hello)
        self.socket.setblocking(False)
        self.is_open = False
        self.received = b""
        self.body = b""

    def frames(self) -> list[tuple[int, int, bytes]]:
        """Read; return the frames that are complete: kind, flags and payload.

        Raises:
            ConnectionError: the server has closed the connection.
        """
        data = self.socket.recv(1 << 16)
        if not data:
            raise ConnectionError("closed")
        self.received += data
        found = []
        while len(self.received) >= HEADER_BYTES:
            end = HEADER_BYTES + int.from_bytes(self.received[:3], "big")
            if len(self.received) < end:
                break
            found.append((self.received[3], self.received[4], self.received[HEADER_BYTES:end]))
            self.received = self.received[end:]
        return found

    def messages(self, payload: bytes) -> list[pb.Message]:
        """Take what came on the stream; return the messages of each response that is complete."""
        self.body += payload
        found: list[pb.Message] = []
        while len(self.body) >= MESSAGE_PREFIX:
            end = MESSAGE_PREFIX + int.from_bytes(self.body[1:MESSAGE_PREFIX], "big")
            if len(self.body) < end:
                break
            found += pb.DeqResponse.FromString(self.body[MESSAGE_PREFIX:end]).messages
            self.body = self.body[end:]
        return found


class Idlers:
    """Wait, hold what they are given, and answer pings. They report ``ready`` when all wait, ``lost`` for each cut."""

    def __init__(self, options: argparse.Namespace, control: Control, recorder: Recorder) -> None:
        """Remember what is asked for; nothing is opened."""
        self._options = options
        self._control = control
        self._notebook = Notebook(recorder, options.queue)
        self._selector = selectors.DefaultSelector()
        self._open = 0

    def run(self) -> None:
        """Wait until the test says stop."""
        self._control.listen()
        host, _, port = self._options.target.rpartition(":")
        request = pb.DeqRequest(queue=self._options.queue, prefetch=1).SerializeToString()
        message = b"\0" + len(request).to_bytes(4, "big") + request
        hello = OPENING + frame(HEADERS, END_HEADERS, 1, call_headers("Deq"))
        hello += frame(DATA, END_STREAM, 1, message)
        for number in range(self._options.clients):
            name = f"{self._options.name}-{number}"
            self._notebook.opens(name)
            idler = Idler(name, (host, int(port)), hello)
            self._selector.register(idler.socket, selectors.EVENT_READ, idler)
            while number - self._open >= AT_ONCE:
                self._poll()
        while self._open < self._options.clients and not self._control.stopped.is_set():
            self._poll()
        self._control.report("ready", time.monotonic_ns())
        while not self._control.stopped.is_set():
            self._poll()

    def _poll(self) -> None:
        for key, _ in self._selector.select(POLL_SECONDS):
            try:
                for kind, flags, payload in key.data.frames():
                    self._take(key.data, kind, flags, payload)
            except ConnectionError as error:
                self._selector.unregister(key.fileobj)
                key.data.socket.close()
                self._notebook.ends(key.data.name, "lost")
                self._control.report("lost", key.data.name, error)

    def _take(self, idler: Idler, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            idler.socket.sendall(frame(SETTINGS, ACK))
        elif kind == PING and not flags & ACK:
            idler.socket.sendall(frame(PING, ACK, 0, payload))
        elif kind == HEADERS and not idler.is_open and not flags & END_STREAM:
            idler.is_open = True
            self._open += 1
        elif kind == DATA:
            self._notebook.receives(idler.messages(payload), idler.name)
        elif kind in (HEADERS, RST_STREAM, GOAWAY):
            raise ConnectionError(f"frame {kind}: {payload!r}")
