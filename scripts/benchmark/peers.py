"""The systems, and their servers as separate processes, each with a free port and its own directory."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stiqueue.polling import EXPERIMENTS

START_SECONDS = 20.0
STOP_SECONDS = 15.0
PACKAGE_PARENT = str(Path(__file__).parent.parent)
ORIGINAL_PYTHON = Path(PACKAGE_PARENT).parent / ".venv-original/bin/python"
NATS_CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{ store_dir: "{directory}", max_memory_store: 8GB, max_file_store: 40GB, {sync} }}
"""


class NotAvailable(Exception):
    """Raised when a system cannot run here; the text says why."""


def environment() -> dict[str, str]:
    """Return the environment of child processes, in which this package can be imported."""
    return {**os.environ, "PYTHONPATH": PACKAGE_PARENT, "PYTHONUNBUFFERED": "1"}


class Server:
    """One running server. Its directory is removed when it stops for good."""

    def __init__(self, command: Callable[[int, Path], list[str]]) -> None:
        """Start it; return when it listens."""
        self.directory = Path(tempfile.mkdtemp(prefix="stiqueue-bench-"))
        self.port = _free_port()
        self._command = command(self.port, self.directory)
        self.start()

    def start(self) -> None:
        """Start it (again, on the same port and directory); return when it listens."""
        log = self.directory / "bench.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=self.directory, env=environment(), stdout=output, stderr=output
            )
        deadline = time.monotonic() + START_SECONDS
        while not _listens(self.port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = log.read_text()[-300:]
                self.stop()
                raise NotAvailable(f"{Path(self._command[0]).name} did not start: {said}")
            time.sleep(0.01)

    def halt(self) -> None:
        """End the process, politely first; the directory stays."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def stop(self) -> None:
        """End the process and remove its directory."""
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    def rss(self) -> int:
        """Return its resident memory in bytes."""
        for line in Path(f"/proc/{self._process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise NotAvailable("this system does not tell how much memory a process has")

    def cpu_seconds(self) -> float:
        """Return the processor time that it has used."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def disk_bytes(self) -> int:
        """Return the size of its files in bytes, without the benchmark's log."""
        files = (each for each in self.directory.rglob("*") if each.is_file() and each.name != "bench.log")
        return sum(each.stat().st_size for each in files)


@dataclass(frozen=True)
class System:
    """One system in one configuration."""

    name: str
    label: str
    client: str
    """Which of `benchmark.clients` talks to it."""
    command: Callable[[int, Path], list[str]]
    check: Callable[[], None] = lambda: None
    """Raises `NotAvailable` if it cannot run here."""
    python: Path = Path(sys.executable)
    """What runs its client."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """What its client has in the environment besides."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def _needs(program: str) -> Callable[[], None]:
    def check() -> None:
        _find(program)

    return check


def _find(program: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin"])
    found = shutil.which(program, path=path)
    if found is None:
        raise NotAvailable(f"{program} is not installed")
    return found


def _check_original() -> None:
    if not ORIGINAL_PYTHON.exists():
        raise NotAvailable("stiqueue 1.3.2 is not installed in .venv-original")


def _check_durable() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "stiqueue.sqserver", "--help"],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if "--data" not in shown.stdout:
        raise NotAvailable("this version of stiqueue has no --data")


def _stiqueue(port: int, directory: Path) -> list[str]:
    command = [sys.executable, "-m", "stiqueue.sqserver", "--port", str(port)]
    try:
        _check_durable()
    except NotAvailable:
        return command
    return [*command, "--data", ":memory:"]


def _stiqueue_durable(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-m", "stiqueue.sqserver", "--port", str(port), "--data", str(directory / "stiqueue.db")]


def _redis(*options: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        fixed = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
        return [_find("redis-server"), *fixed, *options]

    return command


def _echo(port: int, _: Path) -> list[str]:
    return [sys.executable, "-m", "benchmark.echo", str(port)]


def _beanstalkd(durable: bool) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        fixed = [_find("beanstalkd"), "-l", "127.0.0.1", "-p", str(port), "-z", str(4 << 20)]
        return [*fixed, "-b", str(directory), "-f0"] if durable else fixed

    return command


def _nats(sync: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        config = directory / "nats.conf"
        config.write_text(NATS_CONFIG.format(port=port, directory=directory / "data", sync=sync))
        return [_find("nats-server"), "-c", str(config)]

    return command


def _cluster(*what: str) -> Callable[[int, Path], list[str]]:
    def command(port: int, directory: Path) -> list[str]:
        return [sys.executable, "-m", "benchmark.cluster", str(port), str(directory), _find("nats-server"), *what]

    return command


MEMORY_REDIS, SYNCED_REDIS = ("--appendonly", "no"), ("--appendonly", "yes", "--appendfsync", "always")
_HAS_REDIS, _HAS_BEANSTALKD, _HAS_NATS = _needs("redis-server"), _needs("beanstalkd"), _needs("nats-server")

BARE = ("echo", "echo-async")
"""Systems that are not queues: nothing comes out."""

SYSTEMS = {
    system.name: system
    for system in (
        System("echo", "bare gRPC call", "echo", _echo),
        System("echo-async", "bare gRPC call, asyncio", "echo-async", _echo),
        System("stiqueue", "StiQueue, memory", "stiqueue", _stiqueue),
        System("stiqueue-async", "StiQueue, memory, asyncio", "stiqueue-async", _stiqueue),
        System(
            "stiqueue-polls",
            "StiQueue, memory, no EventEngine",
            "stiqueue",
            _stiqueue,
            variables={"GRPC_EXPERIMENTS": EXPERIMENTS},
        ),
        System("stiqueue-durable", "StiQueue, durable", "stiqueue", _stiqueue_durable, _check_durable),
        System(
            "original",
            "stiqueue 1.3.2",
            "original",
            lambda port, _: [str(ORIGINAL_PYTHON), "-m", "stiqueue.sqserver", "--port", str(port)],
            _check_original,
            ORIGINAL_PYTHON,
        ),
        System("redis-streams", "Redis Streams, memory", "redis-streams", _redis(*MEMORY_REDIS), _HAS_REDIS),
        System(
            "redis-streams-hiredis",
            "Redis Streams, memory, hiredis",
            "redis-streams-hiredis",
            _redis(*MEMORY_REDIS),
            _HAS_REDIS,
        ),
        System("redis-streams-aof", "Redis Streams, AOF always", "redis-streams", _redis(*SYNCED_REDIS), _HAS_REDIS),
        System("redis-lists", "Redis lists, memory", "redis-lists", _redis(*MEMORY_REDIS), _HAS_REDIS),
        System("redis-lists-aof", "Redis lists, AOF always", "redis-lists", _redis(*SYNCED_REDIS), _HAS_REDIS),
        System("beanstalkd", "beanstalkd, memory", "beanstalkd", _beanstalkd(False), _HAS_BEANSTALKD),
        System("beanstalkd-f0", "beanstalkd, -f0", "beanstalkd", _beanstalkd(True), _HAS_BEANSTALKD),
        System("nats-memory", "JetStream, memory", "nats-memory", _nats(""), _HAS_NATS),
        System("nats-file", "JetStream, file", "nats-file", _nats(""), _HAS_NATS),
        System(
            "nats-file-sync", "JetStream, file, sync always", "nats-file", _nats("sync_interval: always"), _HAS_NATS
        ),
        System("nats-cluster", "JetStream, 3 servers, sync always", "nats-cluster", _cluster(), _HAS_NATS),
        System(
            "nats-cluster-queue",
            "JetStream, 3 servers, work queue",
            "nats-cluster-queue",
            _cluster(),
            _HAS_NATS,
        ),
        System("stiqueue-cluster", "StiQueue on JetStream, 3 servers", "stiqueue", _cluster("gateway"), _HAS_NATS),
    )
}

QUICK_SYSTEMS = [
    name
    for name in SYSTEMS
    if not name.endswith(("-aof", "-f0", "-sync", "-memory", "-cluster", "-cluster-queue", "redis-lists"))
]
"""The systems without slower variants, and without variants that nobody would compare with."""
