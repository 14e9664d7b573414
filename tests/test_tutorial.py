"""A reader who types all of docs/tutorial.md sees what the page shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stiqueue import SQClient, SQServer, State

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/tutorial.md").read_text()
FILES = re.findall(r"Put this into `(\w+\.py)`.*?```python\n(.*?)```", PAGE, re.S)
BLOCKS = re.findall(r"```console\n(.*?)```", PAGE, re.S)
END = "-- end of output --"
PATIENCE = 60.0
JOB, LONGER_JOB = "time.sleep(0.5)", "time.sleep(2)"
"""Here a job takes longer than on the page, so that all workers have one even if they take seconds to start."""
FRESH_MS = 1_000
"""A job this young is not done before its worker is killed."""


class Shell:
    """One bash for the whole page, so that its jobs and `$!` are known to the next command."""

    def __init__(self, directory: Path, port: int) -> None:
        ours = {name: value for name, value in os.environ.items() if not name.startswith("STIQUEUE_")}
        environment = ours | {"STIQUEUE_PORT": str(port), "PATH": f"{directory}/bin:{os.environ['PATH']}"}
        self._process = subprocess.Popen(
            ["bash"],
            cwd=directory,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, command: str) -> str:
        """Return what `command` prints."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{command}\necho '{END}'\n")
        stdin.flush()
        return "".join(iter(stdout.readline, f"{END}\n"))

    def close(self) -> None:
        """End the shell and everything that it started."""
        self.run("kill -9 $(jobs -p) 2> /dev/null")
        self._process.communicate("exit\n")


@pytest.fixture
def shell(tmp_path: Path, server: SQServer) -> Iterator[Shell]:
    (tmp_path / "bin").mkdir()
    for name, command in ("python", sys.executable), ("stiqueue", f"{sys.executable} -m stiqueue"):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (tmp_path / "bin" / name).chmod(0o755)
    for name, program in FILES:
        # Only here the port is not the default.
        program = program.replace(JOB, LONGER_JOB).replace("(queue=", f"(port={server.port}, queue=")
        # And only here a worker can be told from the others.
        ours = f", threads=1, port={server.port}, consumer=str(__import__('os').getpid()))"
        (tmp_path / name).write_text(program.replace(", threads=1)", ours))
    shell = Shell(tmp_path, server.port)
    yield shell
    shell.close()


def wait_for(client: SQClient, command: str, pid: str) -> None:
    """Wait as the page tells the reader to wait before `command`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        counts = client.counts()
        held = client.peek_messages(state=State.LEASED)
        if command.startswith("kill -9"):
            if len(held) == 4 and any(each.consumer == pid and each.state_age_ms < FRESH_MS for each in held):
                return
        elif not counts.leased + counts.delayed + (counts.ready if "results" in command else 0):
            return
        time.sleep(0.01)
    raise AssertionError(f"the queue never was as it is when a reader types {command!r}: {counts}")


@pytest.mark.slow
def test_every_command_prints_what_the_page_shows(shell: Shell, server: SQServer) -> None:
    assert [name for name, _ in FILES] == ["produce.py", "work.py"]
    printed = []
    with SQClient(port=server.port, queue="squares") as client:
        for block in BLOCKS:
            shown = ""
            for command in re.findall(r"^\$ (.*)$", block, re.M):
                if command.startswith("kill -9") or "cnt" in command or "results" in command:
                    wait_for(client, command, shell.run("echo $!").strip())
                shown += f"$ {command}\n{shell.run(command)}"
            printed.append(re.sub(r"worker \d+ did \d+ ", "worker 4711 did 8 ", shown))
    assert printed == BLOCKS


def test_the_first_line_of_a_server_is_as_shown(tmp_path: Path) -> None:
    shown = re.search(r"stiqueue serve\n\n```text\n(.*?)\n```", PAGE)
    assert shown
    command = [sys.executable, "-m", "stiqueue", "serve", "--port", "0"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STIQUEUE_")}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stderr is not None
        line = server.stderr.readline().rstrip("\n")
        server.terminate()
    line = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:1234", line.replace(str(tmp_path), "/home/ann/tutorial"))
    assert line[len("2026-11-27 09:09:11,318") :] == shown[1][len("2026-11-27 09:09:11,318") :]
