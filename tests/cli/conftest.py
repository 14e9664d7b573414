"""Ways to run the command: inside this process, as a process of its own, and on a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from stiqueue import SQClient, SQServer
from stiqueue.cli.app import app
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "stiqueue"]
posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal and a shell")
Key = tuple[bytes, bytes | Callable[[], object]]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that runs the tests in the background has them ignore Ctrl-C, which the command would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def json(self) -> Any:
        """The one object that was printed."""
        (line,) = self.lines
        return json.loads(line)

    @property
    def jsons(self) -> list[Any]:
        return [json.loads(line) for line in self.lines]


class Cli:
    """The command, aimed at one server."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.environment = {"STIQUEUE_PORT": str(port)}

    def run(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run a command inside this process."""
        result = CliRunner().invoke(app, arguments, input=stdin, env=self.environment)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout_bytes, result.stderr)

    def ok(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run a command that must work."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.code, done.err) == (0, ""), done
        return done

    def fails(self, code: int, *arguments: str, stdin: bytes = b"") -> str:
        """Run a command that must end with `code`; return the one line that says why."""
        done = self.run(*arguments, stdin=stdin)
        assert (done.code, done.out) == (code, b""), done
        (line,) = done.err.splitlines()
        assert line.startswith("stiqueue: ")
        return line

    @contextmanager
    def start(self, *arguments: str, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
        """Start a command as a process with pipes; it is killed in the end if it still runs."""
        options = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE) | options
        with subprocess.Popen([*COMMAND, *arguments], env=self._environment(), **options) as process:
            try:
                yield process
            finally:
                process.kill()

    def process(self, *arguments: str, stdin: bytes = b"") -> Done:
        """Run a command as a process."""
        done = subprocess.run(
            [*COMMAND, *arguments],
            input=stdin,
            env=self._environment(),
            capture_output=True,
            timeout=PATIENCE * 2,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def shell(self, line: str) -> Done:
        """Run a line of shell, in which `stiqueue` is the command."""
        name = f'stiqueue() {{ "{sys.executable}" -m stiqueue "$@"; }}\n'
        done = subprocess.run(
            ["bash", "-c", name + line], env=self._environment(), capture_output=True, timeout=PATIENCE * 2, check=False
        )
        return Done(done.returncode, done.stdout, done.stderr.decode())

    def on_terminal(
        self, *arguments: str, command: Sequence[str] = (), keys: Sequence[Key] = (), size: tuple[int, int] = (24, 100)
    ) -> tuple[int, str]:
        """Run a command on a terminal of its own; type (or do) the second of each of `keys` once the first is seen."""
        return _on_terminal(command or [*COMMAND, *arguments], self._environment(), list(keys), size)

    def _environment(self) -> dict[str, str]:
        # readline, which pytest loads, writes the size of pytest's own terminal into the environment of processes.
        ours = {name: text for name, text in os.environ.items() if name not in ("COLUMNS", "LINES")}
        return ours | self.environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm"}


def _on_terminal(
    command: Sequence[str], environment: dict[str, str], keys: list[Key], size: tuple[int, int]
) -> tuple[int, str]:
    import pty
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
    # The first process of a session that opens a terminal is the one that its Ctrl-C is for.
    opening = ["sh", "-c", 'exec "$@" <>"$0" >&0 2>&0', os.ttyname(theirs), *command]
    with subprocess.Popen(opening, env=environment, start_new_session=True) as process:
        shown, read_from = b"", 0
        deadline = time.monotonic() + PATIENCE * 2
        while time.monotonic() < deadline and (process.poll() is None or select.select([ours], [], [], 0)[0]):
            if keys and keys[0][0] in shown[read_from:]:
                read_from = len(shown)
                act = keys.pop(0)[1]
                os.write(ours, act) if isinstance(act, bytes) else act()
            if select.select([ours], [], [], 0.05)[0]:
                shown += os.read(ours, 65_536)
        process.kill()
    os.close(theirs)
    os.close(ours)
    assert not keys, f"{keys[0][0]!r} was not shown: {shown!r}"
    return process.returncode, shown.decode().replace("\r\n", "\n")


@pytest.fixture
def cli(server: SQServer) -> Cli:
    """The command, aimed at `server`."""
    return Cli(server.port)


@pytest.fixture
def nobody(unused_port: int) -> Cli:
    """The command, aimed at a port where nothing listens."""
    return Cli(unused_port)


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    return free_port()


def rest(process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Return what a process prints until its end; for one of which lines were read, which `communicate` would lose."""
    assert process.stdout is not None
    assert process.stderr is not None
    printed = process.stdout.read(), process.stderr.read()
    process.wait(PATIENCE)
    return printed


def bodies(client: SQClient, queue: str = "default") -> list[bytes]:
    """Return what is ready in a queue."""
    return [bytes(message) for message in client.peek_messages(queue=queue)]
