"""Too many connections: no descriptors left 22, a hog 41. The effect of gRPC's option, in each of its versions."""

from __future__ import annotations

import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.waiting import Call

from stiqueue import SQClient
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

from .frames import PREFACE
from .goodness import GoodClient, descriptors
from .processes import ServerProcess, wait_until
from .run import Run

SECONDS = 20.0
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


class Hog:
    """Opens many connections, of which the server closes those that are too many."""

    def __init__(self, stack: ExitStack, port: int, number: int) -> None:
        self._open = selectors.DefaultSelector()
        stack.callback(self.leave)
        self._port = port
        self.open(number)

    def open(self, number: int) -> None:
        for _ in range(number):
            connection = socket.create_connection(("127.0.0.1", self._port), SECONDS)
            self._open.register(connection, selectors.EVENT_READ)
            try:
                connection.sendall(PREFACE + SETTINGS)
            except OSError:
                continue  # closed already

    def count_open(self) -> int:
        """Return how many the server has not closed so far."""
        for key, _ in self._open.select(0):
            assert isinstance(key.fileobj, socket.socket)
            try:
                data = key.fileobj.recv(1 << 16)
            except OSError:
                data = b""
            if not data:
                self._open.unregister(key.fileobj)
                key.fileobj.close()
        return len(self._open.get_map())

    def has_taken(self, places: int) -> bool:
        """Whether the server has left it so many; takes one that has become free meanwhile."""
        if self.count_open() < places:
            self.open(1)
        return self.count_open() == places

    def leave(self) -> None:
        if self._open.get_map() is not None:
            for key in list(self._open.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
            self._open.close()


@contextmanager
def stub_of_its_own(server: ServerProcess) -> Iterator[QueueServiceStub]:
    with grpc.insecure_channel(server.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        yield QueueServiceStub(channel)


def assert_refused(server: ServerProcess) -> None:
    """Check that a new connection is closed, and that the caller hears of it at once."""
    with stub_of_its_own(server) as stub, pytest.raises(grpc.RpcError) as failed:
        stub.Cnt(pb.CntRequest(), timeout=SECONDS)
    call: Any = failed.value
    assert call.code() is grpc.StatusCode.UNAVAILABLE, call.details()


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def wait_for_a_place(server: ServerProcess) -> None:
    """Wait until a new connection is served."""

    def served() -> bool:
        with stub_of_its_own(server) as stub:
            try:
                stub.Cnt(pb.CntRequest(), timeout=SECONDS)
            except grpc.RpcError:
                return False
        return True

    wait_until(served, SECONDS, "a new connection", 0.05)


def crowd(run: Run, server: ServerProcess, number: int, places: int) -> None:
    """Open `number` connections where `places` are left: those are kept, the others closed, and all else goes on."""
    stub = run.stub()
    stream: Any = stub.Deq(pb.DeqRequest(queue="stream", prefetch=1000))
    stream.initial_metadata()
    before = descriptors(server.pid)
    with ExitStack() as stack:
        good = stack.enter_context(GoodClient(server.target))
        wait_until(lambda: bool(good.seconds), SECONDS, "a good client")
        hog = Hog(stack, server.port, number)
        # One place is the stub's, one the good client's.
        wait_until(lambda: hog.has_taken(places - 2), SECONDS, "the refusal of those that are too many")
        assert_refused(server)
        client = stack.enter_context(SQClient(port=server.port, timeout=5 * SECONDS))
        late = Call(client.enq, "a client that comes meanwhile", queue="late")
        began, used = time.monotonic(), processor_seconds(server.pid)
        so_far = len(good.seconds)
        wait_until(lambda: len(good.seconds) > so_far + 50, SECONDS, "50 calls of a good client")
        share = (processor_seconds(server.pid) - used) / (time.monotonic() - began)
        stub.Enq(pb.EnqRequest(queue="stream", bodies=[b"a"]), timeout=SECONDS)
        assert stream.next().messages[0].body == b"a"
        assert hog.count_open() == places - 2
        assert not late.is_over(), late.result()
        print(
            f"{places} places: {number - hog.count_open()} of {number} closed; {share:.0%} of a core with a good client"
        )
        hog.leave()
        wait_for_a_place(server)
        assert late.is_over(2 * SECONDS)
        assert late.result() == 1
        assert good.failures == []
    wait_until(lambda: descriptors(server.pid) <= before + 5, SECONDS, "descriptors")
    stream.cancel()


def test_41_connection_hog(run: Run) -> None:
    """300 connections where 40 are allowed: those that are there are served, the next are closed, all places return."""
    server = run.server("--max-connections", "40")
    crowd(run, server, 300, 40)


def test_22_out_of_descriptors(run: Run) -> None:
    """400 connections to a server that may have 256 descriptors: it takes as many as leave it enough for all else.

    Streams are served, and while the crowd stays and nobody calls, the server does next to nothing.
    """
    server = run.server("--max-connections", "1000", start=False).start(
        by=["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    )
    assert "WARNING max_connections: only 156, for want of file descriptors (ulimit -n)" in server.log
    crowd(run, server, 400, 156)
    with ExitStack() as stack:
        hog = Hog(stack, server.port, 400)
        wait_until(lambda: hog.has_taken(155), SECONDS, "the refusal of those that are too many")
        began, used = time.monotonic(), processor_seconds(server.pid)
        time.sleep(1.0)
        share = (processor_seconds(server.pid) - used) / (time.monotonic() - began)
        print(f"idle with all places taken: {share:.0%} of a core")
        assert share < 0.2
        assert descriptors(server.pid) < 256


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_41_5_000_connections(run: Run) -> None:
    """The same by 5,000 connections where 1,000 are allowed."""
    server = run.server("--max-connections", "1000")
    crowd(run, server, 5_000, 1_000)
