"""The processes of a run: a server and its clients, started, watched and ended by their own ids."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.ports import free_port

START_SECONDS = 60.0
"""How long a process may take to be ready on a busy machine."""
END_SECONDS = 10.0
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING

_PACKAGE = __package__ or ""
_ROOT = Path(__file__).resolve().parents[_PACKAGE.count(".") + 1]
"""What a worker's module is imported from."""
_REPOSITORY = Path(__file__).resolve().parents[2]


def wait_until(fact: Callable[[], bool], seconds: float, what: str, every: float = 0.005) -> float:
    """Wait for a fact that announces itself to nobody; return how long it took, in seconds.

    Raises:
        TimeoutError: it did not come true in time.
    """
    begin = time.monotonic()
    while not fact():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
    return time.monotonic() - begin


def process_state(pid: int) -> str:
    """Return the system's letter for the state of a process: R, S, T (stopped), Z (dead); empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without server options, with both packages importable."""
    plain = {name: text for name, text in os.environ.items() if not name.startswith("STIQUEUE_")}
    paths = [str(_ROOT), str(_REPOSITORY), plain.get("PYTHONPATH", "")]
    return {**plain, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "GRPC_VERBOSITY": "NONE", **(extra or {})}


class ServerProcess:
    """A server that is a process of its own, with memory for its messages unless `options` say otherwise."""

    def __init__(
        self,
        directory: Path,
        options: Sequence[str] = (),
        *,
        host: str = "127.0.0.1",
        port: int | None = None,
        name: str = "server",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Describe the server; nothing is started."""
        self.directory = directory
        self.options = list(options)
        self.host = host
        self.port = free_port() if port is None else port
        self.name = name
        self.environment = {"STIQUEUE_DATA": ":memory:", **(environment or {})}
        self.limits: dict[str, int] = {}
        """What the shell's ``ulimit`` is told before the process begins: the option's letter, the number."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def target(self) -> str:
        """Where clients find it."""
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(self.host, self.host)
        return f"{host}:{self.port}"

    @property
    def pid(self) -> int:
        """Its process."""
        assert self.process is not None
        return self.process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its process was started and is no more."""
        return self.process is not None and self.process.poll() is not None

    @property
    def log(self) -> str:
        """All that it has written, over all its lives."""
        path = self.directory / f"{self.name}.log"
        return path.read_text() if path.exists() else ""

    def start(self, ready: bool = True, by: Sequence[str] = ()) -> ServerProcess:
        """Start the process, by a command that runs its arguments if there is one; wait until it serves."""
        assert self.process is None or self.process.poll() is not None, "it is still running"
        command = [sys.executable, "-m", "stiqueue.sqserver", "--host", self.host, "--port", str(self.port)]
        if self.limits:
            limits = "".join(f"ulimit -{letter} {number} && " for letter, number in self.limits.items())
            command = ["sh", "-c", f'{limits}exec "$@"', "sh", *command]
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*by, *command, *self.options],
                cwd=self.directory,
                env=environment(self.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_ready()
        return self

    def wait_ready(self, seconds: float = START_SECONDS, status: int = SERVING) -> None:
        """Wait until it answers that it is serving, or has another `status`."""
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 100)]
        give_up = time.monotonic() + seconds
        with grpc.insecure_channel(self.target, [*options, ("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            while time.monotonic() < give_up:
                if self.has_ended:
                    raise RuntimeError(f"{self.name} ended: {self.log}")
                with contextlib.suppress(grpc.RpcError):
                    answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=0.5, wait_for_ready=True)
                    if answer.status == status:
                        return
        raise TimeoutError(f"{self.name} is not as expected after {seconds:g} s: {self.log}")

    def wait(self, seconds: float = END_SECONDS) -> int:
        """Wait until it has ended; return its exit code."""
        assert self.process is not None
        return self.process.wait(seconds)

    def end(self) -> None:
        """Make sure that it is gone, whatever state it is in."""
        _end(self.process)


class ClientProcess:
    """A worker process; see `worker.py` for its roles and their options."""

    def __init__(
        self,
        directory: Path,
        role: str,
        name: str,
        target: str,
        options: Sequence[str],
        prefix: Sequence[str] = (),
    ) -> None:
        """Start it; it records in `directory`. `prefix` is put before its command."""
        self.name = name
        module = f"{_PACKAGE}.worker"
        command = [
            *prefix,
            sys.executable,
            "-m",
            module,
            role,
            "--name",
            name,
            "--target",
            target,
            "--directory",
            str(directory),
        ]
        with (directory / f"{name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *options], env=environment(), cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=log, text=True, bufsize=1,
            )  # fmt: skip
        self.reports: list[str] = []
        """All that it has reported."""
        self._incoming: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._listen, name=f"reports of {name}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def order(self, order: str) -> None:
        """Send it an order."""
        assert self.process.stdin is not None
        self.process.stdin.write(order + "\n")

    def wait_for(self, report: str, seconds: float = START_SECONDS) -> str:
        """Wait for a report that begins with `report`; return it.

        Raises:
            TimeoutError: it did not come in time.
            RuntimeError: the worker ended without it.
        """
        give_up = time.monotonic() + seconds
        while True:
            try:
                line = self._incoming.get(timeout=max(0.0, give_up - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"{self.name} did not say {report!r}; it said {self.reports[-5:]}") from None
            if line is None:
                self._incoming.put(None)
                raise RuntimeError(f"{self.name} ended without saying {report!r}; it said {self.reports[-5:]}")
            if line.startswith(report):
                return line

    def stop(self, seconds: float = END_SECONDS) -> None:
        """Ask it to end, and wait until it has, in good order."""
        with contextlib.suppress(BrokenPipeError):
            self.order("stop")
        code = self.process.wait(seconds)
        assert code == 0, f"{self.name} ended with {code}"

    def end(self) -> None:
        """Make sure that it is gone, whatever state it is in."""
        _end(self.process)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):
                if pipe is not None:
                    pipe.close()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with contextlib.suppress(ValueError):  # closed meanwhile
            for line in self.process.stdout:
                self.reports.append(line.strip())
                self._incoming.put(line.strip())
        self._incoming.put(None)


def _end(process: subprocess.Popen[bytes] | subprocess.Popen[str] | None) -> None:
    if process is not None and process.poll() is None:
        process.send_signal(signal.SIGKILL)  # also ends a stopped process
        process.wait(END_SECONDS)
