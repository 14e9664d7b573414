"""The benchmark's handles of its driver processes: start a job, wait for the result."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from benchmark.clients.base import Unsupported
from benchmark.peers import environment


class Failed(Exception):
    """Raised when a job ended with an error, with its traceback."""


class Done(NamedTuple):
    """The result of a job."""

    seconds: float
    result: Any


class Hand:
    """One driver process."""

    def __init__(self, kind: str, port: int, python: Path, variables: Mapping[str, str]) -> None:
        """Start it, connected to the server on `port`, with further `variables` in its environment."""
        self._process = subprocess.Popen(
            [str(python), "-m", "benchmark.driver", kind, str(port)],
            cwd=tempfile.gettempdir(),  # a driver finds only what is installed, not the package in this directory
            env={**environment(), **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def begin(self, job: str, **arguments: Any) -> None:
        """Start a job."""
        pipe: IO[str] = self._process.stdin  # type: ignore[assignment]
        try:
            print(json.dumps({"do": job, "with": arguments}), file=pipe, flush=True)
        except OSError as error:
            raise Failed(f"the driver ended with {self._process.poll()}") from error

    def end(self) -> Done:
        """Wait for the job that was started.

        Raises:
            Unsupported: its system has no such operation.
            Failed: it ended with an error.
        """
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        if not line:
            raise Failed(f"the driver ended with {self._process.wait()}")
        answer = json.loads(line)
        if "unsupported" in answer:
            raise Unsupported
        if "failed" in answer:
            raise Failed(answer["failed"])
        return Done(answer["seconds"], answer["result"])

    def do(self, job: str, **arguments: Any) -> Done:
        """Run a job and wait for it."""
        self.begin(job, **arguments)
        return self.end()

    def close(self, patience: float = 5.0) -> None:
        """End the process."""
        self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
