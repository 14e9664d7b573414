"""Standard streams that are closed, full or without a reader: no traceback, the right exit code, nothing lost."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from stiqueue import LocalSQClient, SQClient
from tests.cli.conftest import ROOT, Cli, bodies
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")

PRINTING = [
    "cnt",
    "cnt --json",
    "peek",
    "queues",
    "enq x",
    "deq --timeout 0",
    "deq --timeout 0 --no-ack",
    "consume --timeout 0",
    "consume --timeout 0 --exec cat --json",
    "purge --yes",
    "redrive",
    "export FILE",
    "export -",
    "import NONE",
    "move --to-queue other 127.0.0.1:PORT",
    "check DATA",
    "salvage DATA FILE",
    "completion bash",
    "top",
    "--help",
    "--version",
    "cnt --help",
    "",
]


@pytest.fixture
def places(cli: Cli, tmp_path: Path) -> dict[str, str]:
    """What stands for names in a command line."""
    data, none = tmp_path / "data.db", tmp_path / "none"
    with LocalSQClient(data) as local:
        local.enq("a")
    none.write_text("")
    return {"FILE": str(tmp_path / "file"), "DATA": str(data), "NONE": str(none), "PORT": str(cli.port)}


def line(command: str, places: dict[str, str]) -> str:
    return re.sub("|".join(places), lambda found: places[found[0]], command)


@pytest.mark.slow
@pytest.mark.parametrize("command", PRINTING)
def test_without_stdout_nothing_is_done(cli: Cli, client: SQClient, places: dict[str, str], command: str) -> None:
    client.enq("a")
    done = cli.shell(f"stiqueue {line(command, places)} >&-")
    assert done.err == "stiqueue: stdout is closed: nothing was done; to run without it write > /dev/null\n"
    assert done.code == 1
    assert bodies(client) == [b"a"]
    assert not os.path.exists(places["FILE"])


@pytest.mark.parametrize("command", [each for each in PRINTING if each not in ("export FILE", "top", "")])
def test_a_full_stdout_is_told_in_one_line(cli: Cli, client: SQClient, places: dict[str, str], command: str) -> None:
    client.enq("a")
    client.enq("dead", queue="default.dead")
    done = cli.shell(f"stiqueue {line(command, places)} > /dev/full")
    assert done.code == 1
    assert "No space left on device" in done.err.splitlines()[-1]
    assert "Traceback" not in done.err
    if "deq" in command and "no-ack" not in command:
        assert bodies(client) == [b"a"], "it was not printed, so it is back"


@pytest.mark.slow
@pytest.mark.parametrize(
    "stderr", ["2>&-", "2> /dev/full", "2>&1 > /dev/null | true"], ids=["closed", "full", "unread"]
)
@pytest.mark.parametrize(
    "command",
    [
        ("cnt", 0),
        ("enq x", 0),
        ("deq --timeout 0", 0),
        ("peek --queue none", 3),
        ("deq --queue none --timeout 0", 3),
        ("cnt --port 1 --timeout 0.1", 4),
        ("bogus", 2),
        ("cnt --bogus", 2),
        ("", 2),
        ("export -", 0),
        ("consume --queue none --timeout 0 --exec false", 0),
        ("check NONE.db", 1),
    ],
    ids=lambda command: command[0],
)
def test_nobody_needs_stderr(
    cli: Cli, client: SQClient, places: dict[str, str], command: tuple[str, int], stderr: str
) -> None:
    """What is told there is not told; the exit code says it all the same."""
    client.enq("a")
    done = cli.shell(f"set -o pipefail; stiqueue {line(command[0], places)} {stderr}")
    assert (done.code, done.err) == (command[1], "")


@pytest.mark.parametrize("command", ["enq", "enq --whole", "import -"])
def test_without_stdin_nothing_is_read(cli: Cli, client: SQClient, command: str) -> None:
    done = cli.shell(f"stiqueue {command} <&-")
    assert done.err == "stiqueue: stdin is closed: nothing was done; to run without it write < /dev/null\n"
    assert done.code == 1
    assert client.queues() == {}


def test_work_that_prints_nothing_needs_no_stream(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    """As a daemon that closes all three. The command of --exec finds them open, so that its files are not taken."""
    client.enq("a")
    listed = tmp_path / "listed"
    command = f"cat > {tmp_path}/body; ls -l /proc/self/fd > {listed}"
    done = cli.shell(f"stiqueue consume --timeout 0 --exec '{command}' <&- >&- 2>&-")
    assert (done.code, (tmp_path / "body").read_text()) == (0, "a")
    assert re.search(r" 2 -> /dev/null$", listed.read_text(), re.M)
    assert client.queues() == {}


@pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 72),
    reason="gRPC 1.71 opens a descriptor when it is imported, before a command can keep the first three free",
)
@pytest.mark.parametrize("command", ["-m stiqueue.sqserver", "-m stiqueue serve"])
def test_a_server_without_streams_writes_no_log_into_its_data(tmp_path: Path, unused_port: int, command: str) -> None:
    """Its files would get the numbers 0 to 2, and all that is written to stderr."""
    data = tmp_path / "data.db"
    start = f'exec "{sys.executable}" {command} --port {unused_port} --data {data} --debug <&- >&- 2>&-'
    with subprocess.Popen(["bash", "-c", start], env=os.environ | {"PYTHONPATH": str(ROOT)}) as process:
        try:
            with SQClient(port=unused_port, timeout=PATIENCE) as client:
                client.enq("a")
                opened = {number: os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)}
                assert set(opened.values()) == {"/dev/null"}
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()
    with LocalSQClient(data) as local:
        assert local.cnt() == 1


def test_a_server_ends_with_its_exit_code_although_its_log_is_full(tmp_path: Path, unused_port: int) -> None:
    command = [sys.executable, "-m", "stiqueue.sqserver", "--port", str(unused_port), "--data", ":memory:"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with open("/dev/full", "wb") as full, subprocess.Popen(command, stderr=full, env=environment) as process:
        try:
            with SQClient(port=unused_port, timeout=PATIENCE) as client:
                client.enq("a")
            second = subprocess.run(command, stderr=full, env=environment, timeout=PATIENCE, check=False)
            assert second.returncode == 1, "the port is taken"
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


def test_a_health_check_needs_nobody_who_reads(cli: Cli) -> None:
    for stdout in (">&-", "> /dev/full"):
        check = f'PYTHONPATH={ROOT} "{sys.executable}" -m stiqueue.health --port {cli.port} {stdout}'
        done = cli.shell(check)
        assert (done.code, done.err) == (0, "")


# -- python -OO -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_docstrings_and_assertions_all_is_as_before(tmp_path: Path, unused_port: int) -> None:
    optimised = [sys.executable, "-OO", "-m", "stiqueue"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "STIQUEUE_PORT": str(unused_port)}
    data = str(tmp_path / "data.db")

    def run(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        done = subprocess.run(
            [*optimised, *arguments],
            input=stdin, env=environment, cwd=tmp_path, capture_output=True, timeout=PATIENCE * 2, check=False,
        )  # fmt: skip
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    server = [sys.executable, "-OO", "-m", "stiqueue.sqserver", "--port", str(unused_port), "--data", data]
    with subprocess.Popen(server, env=environment, stderr=subprocess.PIPE) as process:
        try:
            with SQClient(port=unused_port, timeout=PATIENCE) as client:
                client.cnt()
            assert run("enq", stdin=b"a\nb\n") == (0, "enqueued 2 messages in default\n", "")
            assert run("deq", "--timeout", "0") == (0, "a\n", "")
            assert run("enq", "--delay", "1h", "later")[0] == 0
            assert run("export", "out.jsonl") == (0, "exported 2 messages of 1 queue to out.jsonl\n", "")
            assert run("enq", "--queue", "a b", "x")[0] == 2
            assert run("--help")[0] == 0
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0
            assert process.stderr is not None
            assert b"Traceback" not in process.stderr.read()
    assert run("check", data)[0] == 0
    code, out, err = run("cnt", "--timeout", "0.1")
    assert (code, out) == (4, "")
    assert err.startswith("stiqueue: ")


def test_without_docstrings_every_exception_has_a_text() -> None:
    program = """
from stiqueue import errors
for kind in vars(errors).values():
    if isinstance(kind, type) and issubclass(kind, errors.StiQueueError):
        print(f"{kind()} | {kind('own')}")
class Own(errors.Unavailable):
    pass
print(Own())
"""
    for option, first in (
        ("-OO", "StiQueueError: ERROR | own"),
        ("-B", "Raised when StiQueue cannot do what was "),
    ):
        told = subprocess.run(
            [sys.executable, option, "-c", program],
            env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=PATIENCE, check=True,
        ).stdout.splitlines()  # fmt: skip
        assert told[0].startswith(first)
        assert all(told)
