"""The examples do what they say, as a user would run them."""

from __future__ import annotations

import importlib
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from stiqueue import SQServer

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
PATIENCE = 60.0


def load(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(EXAMPLES)
    return importlib.import_module(name)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="one worker is killed by SIGKILL")
def test_wordcount_counts_every_file_once_although_a_worker_is_killed() -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "wordcount.py"],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    files, killed, words, verdict = done.stdout.splitlines()
    assert int(files.split()[0]) > 500, "not the whole standard library"
    assert re.search(r"\['worker-[1-4]'\]; counted at last by: .*\(\d+, 'worker-[1-4]'\)", killed), killed
    counted, plain = map(int, re.findall(r"(\d+) by", words))
    assert counted == plain > 500_000
    assert verdict == "equal, each file once"


def test_thread_pool_squares_every_number_once_either_way(server: SQServer) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "thread_pool.py", "--port", str(server.port)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "worker: 328350, rejected: one hundred\nplain: 328350, rejected: one hundred\n"
    assert done.stderr.count("RuntimeError: a bug that comes and goes") == 34, "the worker logs each failure"


@pytest.fixture
def extended(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Any, SQServer]]:
    """The example's server, with everything that it adds, and a client of it."""
    ours, theirs = load("extend_server", monkeypatch), load("extend_client", monkeypatch)
    shout = (ours.add_ShoutServicer_to_server, ours.ShoutServicer())
    with (
        ours.RevServer(port=0, services=[shout], interceptors=[ours.CallLog()]) as server,
        theirs.RevClient(port=server.port, timeout=PATIENCE) as client,
    ):
        yield client, server


def test_rev_returns_the_next_message_reversed(extended: tuple[Any, SQServer]) -> None:
    client, _ = extended
    client.enq(b"ABC")
    client.enq(b"DEFG")
    assert client.rev() == "CBA"
    assert client.rev() == "GFED"
    assert client.counts().acked == 2


def test_async_and_plain_methods_are_served(extended: tuple[Any, SQServer]) -> None:
    client, _ = extended
    client.enq("ABC")
    assert client.shout("loud") == "LOUD"  # async
    assert client.waiting() == 1  # plain


def test_interceptors_see_every_call_and_a_pipe_once(
    extended: tuple[Any, SQServer], caplog: pytest.LogCaptureFixture
) -> None:
    client, _ = extended
    with caplog.at_level(logging.INFO, logger="stiqueue"):
        client.enq("ABC")
        client.enq("DEF")
        client.enq_many(["GHI"])
        client.rev()
    assert caplog.messages == [
        "call of /stiqueue.v1.PipeService/Pipe",
        "call of /stiqueue.v1.QueueService/Enq",
        "call of /examples.Rev/Rev",
    ]


def test_a_caller_who_hangs_up_takes_no_message_along(extended: tuple[Any, SQServer]) -> None:
    client, server = extended
    with type(client)(port=server.port, timeout=0.2) as hasty, pytest.raises(grpc.RpcError) as gone:
        hasty.rev()
    assert gone.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    deadline = time.monotonic() + PATIENCE
    while client.counts().consumers:
        assert time.monotonic() < deadline, "the caller is gone, and its subscription goes on"
        time.sleep(0.005)
    client.enq("ABC")
    assert client.rev() == "CBA"


def test_reflection_lists_our_service_and_the_added_ones(extended: tuple[Any, SQServer]) -> None:
    _, server = extended
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        (answer,) = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
    listed = {service.name for service in answer.list_services_response.service}
    assert {"stiqueue.v1.QueueService", "examples.Rev", "examples.Shout"} <= listed


def test_the_extended_server_and_client_run_as_commands() -> None:
    server = subprocess.Popen(
        [sys.executable, EXAMPLES / "extend_server.py", "--port", "0"],
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stderr is not None
        started = re.search(r"127\.0\.0\.1:(\d+)", server.stderr.readline())
        assert started
        done = subprocess.run(
            [sys.executable, EXAMPLES / "extend_client.py", "--port", started[1]],
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "2 CBA GFED DONE\n"), done.stderr
        server.terminate()
        assert server.wait(PATIENCE) == 0
    finally:
        server.kill()
        server.communicate()
