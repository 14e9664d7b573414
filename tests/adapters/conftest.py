"""A server that can be killed, and the processes of frameworks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from faults.processes import ServerProcess

from stiqueue import SQClient

HERE = Path(__file__).parent
END_SECONDS = 20.0

Begin = Callable[..., "Program"]
"""Starts a Python program: ``begin("-m", "celery", ..., NAME="value of the environment")``."""


class Program:
    """A process of a framework, in a process group of its own."""

    def __init__(self, log: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        self._log = log
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=HERE,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        """All that it has written."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End it and its children at once, as a machine that loses its power does."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(END_SECONDS)

    def stop(self) -> int:
        """Ask it to end by SIGTERM; return its exit code."""
        self.process.terminate()
        return self.process.wait(END_SECONDS)


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a data file, in a process of its own."""
    server = ServerProcess(tmp_path, ["--data", str(tmp_path / "stiqueue.db")])
    server.start()
    yield server
    server.end()


@pytest.fixture
def observer(durable: ServerProcess) -> Iterator[SQClient]:
    """A client of `durable`."""
    with SQClient(port=durable.port, auto_ack=False) as client:
        yield client


@pytest.fixture
def begin(durable: ServerProcess, tmp_path: Path) -> Iterator[Begin]:
    """Start programs, which find the port of `durable` in ``PORT``; end them after the test."""
    programs: list[Program] = []

    def start(*arguments: str, **environment: str) -> Program:
        log = tmp_path / f"program-{len(programs)}.log"
        programs.append(Program(log, arguments, {"PORT": str(durable.port), **environment}))
        return programs[-1]

    yield start
    for program in programs:
        program.kill()


@pytest.fixture
def seen(observer: SQClient) -> Callable[[], str]:
    """Return a function that returns what tasks said next."""

    def read() -> str:
        message: Any = observer.deq(30, queue="seen")
        assert message is not None, "no task said anything"
        message.ack()
        return str(message.decode())

    return read
