"""Fixtures of all tests: a real server on a free port, a client of it, and a raw stub beside."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import grpc
import pytest
from support.scenarios import Scenarios

from stiqueue import SQClient, SQServer
from stiqueue.v1 import queue_pb2_grpc

SETTLE_SECONDS = 5.0
"""How long threads that are ending may take."""


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marks that fixtures read."""
    config.addinivalue_line("markers", "options(**options): options of the server or the engine of `place`")
    config.addinivalue_line("markers", "scenario(name, client): a test of that row of the table in docs/clients.md")
    config.pluginmanager.register(Scenarios(config.getoption("write_scenarios")), "scenarios")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run write what it is to be compared with."""
    parser.addoption(
        "--write-scenarios", action="store_true", help="write the table of docs/clients.md, if nothing fails"
    )


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    """Fail a test after which a thread of ours goes on."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + SETTLE_SECONDS
    ours = [each for each in threading.enumerate() if each.name.startswith("stiqueue-") and each not in before]
    for thread in ours:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert [thread.name for thread in ours if thread.is_alive()] == []


@pytest.fixture
def server() -> Iterator[SQServer]:
    """A server of this test alone, in a thread."""
    with SQServer(port=0) as server:
        yield server


@pytest.fixture
def client(server: SQServer) -> Iterator[SQClient]:
    """A client of `server`."""
    with SQClient(port=server.port, timeout=10.0) as client:
        yield client


@pytest.fixture
def channel(server: SQServer) -> Iterator[grpc.Channel]:
    """A plain connection to `server`, without limits of its own."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        yield channel


@pytest.fixture
def stub(channel: grpc.Channel) -> queue_pb2_grpc.QueueServiceStub:
    """The generated stub, to say things that our client would not."""
    return queue_pb2_grpc.QueueServiceStub(channel)
