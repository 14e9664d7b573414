"""Fixtures of all tests: a real server on a free port, a client of it, and a raw stub beside."""

from __future__ import annotations

import resource
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from support.ports import free_port
from support.scenarios import Scenarios
from support.turns import Turns, number_of_workers

from stiqueue import SQClient, SQServer
from stiqueue.client.calls.sender import Sender
from stiqueue.v1 import queue_pb2_grpc

HERE = Path(__file__).parent
SLOW_FOLDERS = {"adapters", "faults", "web"}
"""Their tests start many processes, workers or a browser."""
DESCRIPTORS = 8192
"""How many files and connections a process of tests may have open."""
SETTLE_SECONDS = 5.0
"""How long threads that are ending may take."""


def pytest_configure(config: pytest.Config) -> None:
    """Tell pytest of the marks that fixtures read."""
    # Many tests share a process, and some open hundreds of connections.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(DESCRIPTORS, hard)), hard))
    # Started in the background by a shell, pytest ignores Ctrl-C, and so would the programs that tests interrupt.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "options(**options): options of the server or the engine of `place`")
    config.addinivalue_line("markers", "scenario(name, client): a test of that row of the table in docs/clients.md")
    if config.getoption("calls"):
        Sender.is_avoided = property(lambda self: True)  # type: ignore[method-assign, assignment]
    config.pluginmanager.register(Scenarios(config.getoption("write_scenarios")), "scenarios")
    config.pluginmanager.register(Turns(config), "turns")


@pytest.hookimpl(tryfirst=True)  # before the slow ones are left out
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark all tests of the slow folders, unless the command line names what to run."""
    if not config.option.file_or_dir:
        for item in items:
            if item.path.relative_to(HERE).parts[0] in SLOW_FOLDERS:
                item.add_marker("slow")


@pytest.hookimpl(optionalhook=True)  # known where pytest-xdist is installed; asked before there is a pytest_configure
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Say what ``-n auto`` is."""
    return number_of_workers(config.option.file_or_dir)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let a run write what it is to be compared with."""
    parser.addoption("--calls", action="store_true", help="let clients make a call of each request, without pipes")
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
    with SQServer(port=free_port()) as server:
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
