"""``python -m stiqueue.sqserver``: what it says, writes and answers to signals."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.waiting import PATIENCE, until

from stiqueue import SQClient, SQServer
from stiqueue._version import __version__

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")
SIGNALS = [signal.SIGTERM, signal.SIGINT]


class Command:
    """The command under way, in a directory of its own."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STIQUEUE_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stiqueue.sqserver", "--port", "0", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=directory,
            env=environment,
        )
        self._watchdog = threading.Timer(PATIENCE * 2, self.process.kill)
        self._watchdog.start()

    def line(self) -> str:
        """Return the next line that it says."""
        assert self.process.stderr is not None
        return self.process.stderr.readline().rstrip("\n")

    def port(self) -> int:
        """Return where it serves, from its first line."""
        found = re.search(r" on 127\.0\.0\.1:(\d+), ", self.line())
        assert found is not None
        return int(found[1])

    def end(self) -> str:
        """Wait for its end; return what else it said."""
        output, errors = self.process.communicate(timeout=PATIENCE)
        assert output == ""
        return errors

    def close(self) -> None:
        self._watchdog.cancel()
        self.process.kill()
        self.process.communicate()


Start = Callable[..., Command]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Return a function that starts the command with more arguments."""
    commands: list[Command] = []

    def run(*arguments: str) -> Command:
        commands.append(Command(tmp_path, *arguments))
        return commands[-1]

    yield run
    for command in commands:
        command.close()


def test_the_first_line_says_version_address_and_where_messages_live(start: Start, tmp_path: Path) -> None:
    line = start().line()
    assert re.search(rf" INFO StiQueue {re.escape(__version__)} on 127\.0\.0\.1:\d+, messages ", line)
    assert str(tmp_path / "stiqueue.db") in line
    assert (tmp_path / "stiqueue.db").exists()


def test_the_first_line_says_who_may_reach_it_and_where_it_is_watched(start: Start, tmp_path: Path) -> None:
    assert start().line().endswith("; no TLS, no tokens")
    (tmp_path / "tokens").write_text("0123456789abcdef admin\n")
    (tmp_path / "tokens").chmod(0o600)
    line = start("--data", ":memory:", "--tokens", "tokens", "--metrics-port", "0").line()
    assert re.search(r"; no TLS, tokens, metrics on port [1-9]\d+$", line)


def test_in_memory_it_leaves_no_file(start: Start, tmp_path: Path) -> None:
    assert "in memory (lost when the process ends)" in start("--data", ":memory:").line()
    assert list(tmp_path.iterdir()) == []


@posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_with_0(start: Start, number: signal.Signals) -> None:
    command = start()
    with SQClient(port=command.port()) as client:
        client.enq("a")
    command.process.send_signal(number)
    assert command.end().splitlines()[-1].endswith(" INFO stopped")
    assert command.process.returncode == 0


@posix
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_it_although_a_consumer_holds_on(start: Start, number: signal.Signals) -> None:
    command = start("--grace", "0.1")
    port = command.port()
    with SQClient(port=port, timeout=0.1) as client, SQClient(port=port) as other:
        other.enq("a")
        assert client.deq(timeout=PATIENCE) == b"a"
        until(lambda: other.counts().leased, 1)
        command.process.send_signal(number)
        command.end()
    assert command.process.returncode == 0


@posix
def test_it_says_what_a_stop_waits_for_and_what_became_of_it(start: Start) -> None:
    command = start("--grace", "0.1")
    with SQClient(port=command.port(), timeout=5, auto_ack=False) as client:
        client.enq_many(["a", "b"])
        held = [client.deq(timeout=PATIENCE), client.deq(timeout=PATIENCE)]
        command.process.send_signal(signal.SIGTERM)
        lines = [line.partition(" INFO ")[2] for line in command.end().splitlines()]
    assert held == [b"a", b"b"]
    assert lines == [
        "stopping: waiting up to 0.1 s for consumers to settle 2 messages; a second signal ends the wait",
        "drained: 2 messages given back",
        "stopped",
    ]


@posix
def test_a_stop_that_need_not_wait_says_so(start: Start) -> None:
    command = start()
    command.port()
    command.process.send_signal(signal.SIGTERM)
    lines = [line.partition(" INFO ")[2] for line in command.end().splitlines()]
    assert lines == ["stopping: no consumer holds a message", "stopped"]


@posix
def test_what_it_confirmed_is_there_after_a_restart(start: Start) -> None:
    command = start()
    with SQClient(port=command.port()) as client:
        client.enq_many(list("abc"))
    command.process.send_signal(signal.SIGTERM)
    command.end()
    with SQClient(port=start().port()) as client:
        assert client.peek() == b"a,b,c"


def test_a_port_in_use_is_one_clear_line_and_exit_code_1(start: Start, server: SQServer) -> None:
    command = start("--port", str(server.port))
    assert command.end() == f"stiqueue: cannot listen on 127.0.0.1:{server.port}: Address already in use\n"
    assert command.process.returncode == 1


def test_a_data_file_in_use_is_one_clear_line_and_exit_code_1(start: Start) -> None:
    first = start()
    first.port()
    second = start()
    errors = second.end()
    assert errors.startswith("stiqueue: ")
    assert errors.count("\n") == 1
    assert "stiqueue.db" in errors
    assert second.process.returncode == 1


def test_an_option_that_makes_no_sense_is_one_clear_line_and_exit_code_2(start: Start) -> None:
    command = start("--max-consumers", "0")
    assert "max_consumers: 0 is not a number within 1 to " in command.end().splitlines()[-1]
    assert command.process.returncode == 2


def test_an_unknown_option_is_one_line_with_what_was_perhaps_meant(start: Start) -> None:
    command = start("--max-mesages", "5")
    assert command.end() == (
        "stiqueue: no such option: --max-mesages; did you mean --max-messages?"
        " (see `python -m stiqueue.sqserver --help`)\n"
    )
    assert command.process.returncode == 2


def test_the_help_of_both_commands_has_the_same_options_and_values() -> None:
    told = []
    for command in ("stiqueue.sqserver", "--help"), ("stiqueue", "serve", "--help"):
        environment = os.environ | {"COLUMNS": "200"}
        text = subprocess.run(
            [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=True
        ).stdout
        found = re.findall(r"^  (--[\w-]+)(?:,? / ?|, | )(\S+)", text, re.M)
        found = [each for each in found if not each[0].startswith("--web-")]  # of the console, which `serve` starts
        told.append(sorted((name, value.strip("[]{}").replace("|", ",")) for name, value in found))
    assert told[0] == told[1]
    assert ("--max-messages", "MESSAGES") in told[0]
    assert ("--sync", "always,off") in told[0]


def test_0_0_0_0_warns(start: Start) -> None:
    command = start("--host", "0.0.0.0")
    assert " on 0.0.0.0:" in command.line()
    assert " WARNING 0.0.0.0 is reachable from other machines" in command.line()


@posix
def test_debug_logs_every_message_shortened(start: Start) -> None:
    command = start("--debug")
    with SQClient(port=command.port()) as client:
        client.enq("hello")
        client.enq("x" * 100_000)
        assert client.deq(timeout=PATIENCE) == b"hello"
    command.process.send_signal(signal.SIGTERM)
    errors = command.end()
    assert "DEBUG enq default #1 b'hello' (5 bytes)" in errors
    assert "DEBUG deq default #1 b'hello' (5 bytes)" in errors
    assert "(100000 bytes)" in errors
    assert max(map(len, errors.splitlines())) < 300


@posix
def test_log_writes_to_a_file_instead(start: Start, tmp_path: Path) -> None:
    command = start("--log", "server.log")
    log = tmp_path / "server.log"
    until(lambda: log.exists() and "StiQueue" in log.read_text())
    command.process.send_signal(signal.SIGTERM)
    assert command.end() == ""
    first, *_, last = log.read_text().splitlines()
    assert f" INFO StiQueue {__version__} on 127.0.0.1:" in first
    assert last.endswith(" INFO stopped")


def test_a_log_file_that_cannot_be_written_is_one_clear_line_and_exit_code_1(start: Start) -> None:
    command = start("--log", "no/such/directory/server.log")
    errors = command.end()
    assert errors.startswith("stiqueue: ")
    assert errors.count("\n") == 1
    assert command.process.returncode == 1
