"""What a server looks after while it serves: how many connections and file descriptors there are."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from contextlib import ExitStack

import google.protobuf
import grpc
import pytest
from support.waiting import run_python, until

from stiqueue import SQServer
from stiqueue.server import descriptors, upkeep
from stiqueue.server.upkeep import Upkeep
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

SECONDS = 20.0
MOST = 3

needs_proc = pytest.mark.skipif(descriptors.count_open() is None, reason="the system does not tell of connections")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def connect(stack: ExitStack, server: SQServer) -> grpc.Channel:
    channel = grpc.insecure_channel(f"127.0.0.1:{server.port}", [("grpc.use_local_subchannel_pool", 1)])
    QueueServiceStub(stack.enter_context(channel)).Cnt(pb.CntRequest(), timeout=SECONDS)
    return channel


@needs_proc
def test_it_warns_each_time_that_all_connections_are_taken(
    server: SQServer, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    checks = Upkeep(server.logger, server.port, MOST)
    now = time.monotonic()

    def warnings_after_a_look() -> int:
        nonlocal now
        now += upkeep.COUNT_SECONDS
        checks.tick(now, lambda: None)
        return len(caplog.messages)

    channels = [connect(stack, server) for _ in range(MOST - 1)]
    assert warnings_after_a_look() == 0
    for warnings in 1, 2:
        channels.append(connect(stack, server))
        assert [warnings_after_a_look() for _ in range(3)] == [warnings] * 3
        channels.pop().close()
        until(lambda: descriptors.count_connections(server.port), MOST - 1)
        assert warnings_after_a_look() == warnings
    assert set(caplog.messages) == {
        "there are 3 connections, the limit (max_connections, and file descriptors by ulimit -n); new ones are closed"
    }


@pytest.mark.parametrize(("asked", "warnings"), [(1_000, ["924"]), (900, []), (None, [])])
def test_it_warns_when_descriptors_do_not_suffice_for_what_it_was_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, asked: int | None, warnings: list[str]
) -> None:
    monkeypatch.setattr(descriptors, "connections_within", lambda asked: min(asked, 924))
    with SQServer(port=0, max_connections=asked):
        assert caplog.messages == [
            f"max_connections: only {each}, for want of file descriptors (ulimit -n)" for each in warnings
        ]


RAISED = """
import resource
from stiqueue.server import descriptors, process
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))
print(descriptors.connections_within(10**9), descriptors.connections_within(50))
process.tune()
print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))
resource.setrlimit(resource.RLIMIT_NOFILE, (1_000, hard))
print(descriptors.connections_within(10**9))
"""


@pytest.mark.skipif(descriptors.resource is None, reason="the system has no such limit")
def test_the_command_has_as_many_descriptors_as_it_may_ask_for_and_leaves_some_free() -> None:
    done = run_python(RAISED)
    assert done.stdout.split() == ["100", "50", "True", "900"], done.stderr


FAULTS = """
import resource
from stiqueue.server import process
from stiqueue.v1 import queue_pb2 as pb
process.tune()
body = bytes(4 << 20)
def serialize():
    response = pb.DeqResponse()
    response.messages.add().body = body
    return len(response.SerializeToString())
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(3):
    serialize()
before = faults()
for _ in range(10):
    serialize()
print((faults() - before) // 10)
"""


@pytest.mark.skipif(
    google.protobuf.__version__.startswith("5."), reason="protobuf 5 takes more memory for a message than is kept"
)
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_the_command_keeps_the_memory_of_a_large_message_for_the_next() -> None:
    """Else each begins with 3,000 page faults, which hold the event loop for milliseconds."""
    done = run_python(FAULTS)
    assert int(done.stdout) < 100, done
