"""Calls that begin and do not go on: fault 40."""

from __future__ import annotations

import socket
import time
from typing import Any

from stiqueue.v1 import queue_pb2 as pb

from .frames import DATA, END_HEADERS, HEADERS, OPENING, call_headers, frame
from .goodness import GoodClient, assert_undisturbed, descriptors, usual_p99, wait_for_descriptors
from .run import Run

SECONDS = 10.0


def slow_calls(port: int, count: int) -> socket.socket:
    """Begin calls of which nothing follows their headers, on one connection."""
    connection = socket.create_connection(("127.0.0.1", port), SECONDS)
    block = call_headers("Enq")
    calls = b"".join(frame(HEADERS, END_HEADERS, 2 * number + 1, block) for number in range(count))
    connection.sendall(OPENING + calls)
    return connection


def test_40_slow_calls(run: Run) -> None:
    """40 and 400 calls of headers only, 40 that send a byte now and then, 12 such connections, 64 waiting streams.

    Another client is served as fast as one of another server.
    """
    server = run.server()
    elsewhere = run.server()
    usual_p99(server.target, 0.2)
    open_before = descriptors(server.pid)
    connections = [slow_calls(server.port, count) for count in (40, 400, *[100] * 12)]
    drip = slow_calls(server.port, 40)
    stub = run.stub()
    streams: list[Any] = [stub.Deq(pb.DeqRequest(queue="none")) for _ in range(64)]
    run.wait_for_counts(5, "none", consumers=64)
    with GoodClient(elsewhere.target) as undisturbed, GoodClient(server.target) as good:
        for byte in b"\0\0\0":  # the beginning of a message's length
            for number in range(40):
                drip.sendall(frame(DATA, 0, 2 * number + 1, bytes([byte])))
            time.sleep(1.0)
    assert_undisturbed(good, undisturbed)
    for stream in streams:
        stream.cancel()
    for connection in (*connections, drip):
        connection.close()
    run.wait_for_counts(5, "none", consumers=0)
    wait_for_descriptors(server, open_before)
