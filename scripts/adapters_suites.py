"""The frameworks' own tests, on our adapters; see scripts/test-adapters."""

from __future__ import annotations

import argparse
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

KOMBU = """
import kombu, pytest
from stiqueue import SQServer
import stiqueue.adapters.celery
from common import *

@pytest.fixture
def server():
    with SQServer(port=0) as server:
        yield server

@pytest.fixture
def connection(server):
    return kombu.Connection(f"stiqueue://127.0.0.1:{server.port}")

@pytest.fixture
def invalid_connection():
    return kombu.Connection("stiqueue://127.0.0.1:12", connect_timeout=1)

@pytest.fixture
def failover_connection(server):
    return kombu.Connection(f"stiqueue://127.0.0.1:12;stiqueue://127.0.0.1:{server.port}", connect_timeout=2)

class Test_Basic(BasicFunctionality): pass
class Test_ExchangeTypes(BaseExchangeTypes): pass
class Test_TimeToLive(BaseTimeToLive): pass
class Test_Priority(BasePriority): pass
class Test_Message(BaseMessage): pass
class Test_Failover(BaseFailover): pass
class Test_EventLoop(BaseEventLoop): pass
"""

DRAMATIQ_COMMON = """
import platform
from contextlib import contextmanager
import pytest
from dramatiq import Worker

skip_on_pypy = pytest.mark.skipif(platform.python_implementation() == "PyPy", reason="slow")

@contextmanager
def worker(*args, **kwargs):
    worker = Worker(*args, **kwargs)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
"""

DRAMATIQ_CONFTEST = """
import copy, logging
import dramatiq, pytest
from dramatiq import Worker
from stiqueue import SQServer
from stiqueue.adapters.dramatiq import StiQueueBroker

class Remembering(dramatiq.Middleware):
    "Keeps the exceptions of messages that failed for good, as the stub broker does."
    def __init__(self):
        self.failures = []

    def before_nack(self, broker, message):
        self.failures.append(copy.copy(message._exception))  # without its traceback

class Broker(StiQueueBroker):
    def __init__(self, **options):
        super().__init__(**options)
        self.remembering = Remembering()
        self.add_middleware(self.remembering)

    def join(self, queue_name, *, timeout=None, fail_fast=True):
        super().join(queue_name, timeout=timeout)
        if fail_fast and self.remembering.failures:
            raise self.remembering.failures.pop()

@pytest.fixture
def stub_broker():
    with SQServer(port=0) as server:
        broker = Broker(port=server.port)
        broker.emit_after("process_boot")
        dramatiq.set_broker(broker)
        yield broker
        broker.close()

@pytest.fixture
def stub_worker(stub_broker):
    worker = Worker(stub_broker, worker_timeout=100, worker_threads=32)
    worker.start()
    yield worker
    worker.stop()

@pytest.fixture
def info_logging():
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.INFO)
    yield
    logger.setLevel(before)
"""

CELERY_PING = """

def assert_ping(manager):
    "Tests begin by asking the worker by remote control whether it is there; it is, and has no remote control."
"""

NOT_APPLICABLE = Path(__file__).parent / "adapters_suites.txt"
"""Tests that are not expected to pass: ``suite: test: reason``, a line for each."""


def excluded(suite: str) -> dict[str, str]:
    """Return the tests of `suite` that are left out, with their reasons."""
    found = {}
    for line in NOT_APPLICABLE.read_text().splitlines():
        if line and not line.startswith("#"):
            name, test, reason = line.split(": ", 2)
            if name == suite:
                found[test] = reason
    return found


def fetch(package: str, directory: Path) -> Path:
    """Unpack the source package of the installed version of `package`; return where it is."""
    wanted = f"{package}=={version(package)}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", directory, wanted],
        check=True,
    )
    (archive,) = directory.glob(f"{package}-*.tar.gz")
    with tarfile.open(archive) as file:
        file.extractall(directory, filter="data")
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


def run(suite: str, directory: Path, tests: list[str], options: Sequence[str] = (), **environment: str) -> bool:
    """Run tests by pytest, without those that are left out; return whether all passed."""
    print(f"\n== {suite} {version(suite.split()[0])}", flush=True)
    left_out = [option for test in excluded(suite) for option in ("--deselect", test)]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", "-o", "timeout=60"),
            *("--disable-warnings", "--tb=short", *options, *left_out, *tests),
        ],
        cwd=directory,
        env={**os.environ, **environment},
    )
    for test, reason in excluded(suite).items():
        print(f"left out: {test}: {reason}")
    return done.returncode == 0


def kombu(directory: Path, everything: bool) -> bool:
    """Run kombu's integration mixins."""
    tests = directory / "tests"
    tests.mkdir()
    shutil.copy(fetch("kombu", directory) / "t/integration/common.py", tests)
    (tests / "test_stiqueue.py").write_text(KOMBU)
    return run("kombu", tests, ["test_stiqueue.py"])


def dramatiq(directory: Path, everything: bool) -> bool:
    """Run Dramatiq's tests that ask for a broker without saying which."""
    tests = fetch("dramatiq", directory) / "tests"
    shutil.rmtree(tests.parent / "dramatiq")  # it is installed
    (tests / "__init__.py").touch()
    (tests / "common.py").write_text(DRAMATIQ_COMMON)  # not in the source package
    (tests / "conftest.py").write_text(DRAMATIQ_CONFTEST)
    files = ["test_stub_broker.py", "test_actors.py", "test_callbacks.py", "test_worker.py"]
    return run("dramatiq", tests.parent, [f"tests/{name}" for name in files])


def celery(directory: Path, everything: bool) -> bool:
    """Run Celery's integration tests, with results in Redis."""
    if shutil.which("redis-server") is None:
        print("\n== celery: left out, because redis-server is missing")
        return not os.environ.get("CI")
    top = fetch("celery", directory)
    shutil.rmtree(top / "celery")  # it is installed
    with (top / "t/integration/conftest.py").open("a") as file:
        file.write("\nimport stiqueue.adapters.celery\n")
    with (top / "t/integration/test_canvas.py").open("a") as file:
        file.write(CELERY_PING)
    with redis(directory) as redis_port, broker(directory) as port:
        environment = {
            "TEST_BROKER": f"stiqueue://127.0.0.1:{port}",
            "TEST_BACKEND": f"redis://127.0.0.1:{redis_port}",
            "REDIS_PORT": str(redis_port),
            "WORKER_LOGLEVEL": "INFO",  # as in Celery's tox.ini
        }
        files = ["test_tasks.py", *(["test_canvas.py"] if everything else [])]
        # Some tests of the canvas wait for 140 s.
        options = ["-p", "celery.contrib.pytest", *(["-o", "timeout=300"] if everything else [])]
        return run("celery", top, [f"t/integration/{name}" for name in files], options, **environment)


@contextmanager
def redis(directory: Path) -> Iterator[int]:
    """Run a Redis server; return its port."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory), "--save", ""]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        wait_for(port)
        yield port
        process.terminate()


@contextmanager
def broker(directory: Path) -> Iterator[int]:
    """Run a StiQueue server; return its port."""
    port = free_port()
    command = [sys.executable, "-m", "stiqueue.sqserver", "--port", str(port), "--data", str(directory / "stiqueue.db")]
    with subprocess.Popen(command) as process:
        wait_for(port)
        yield port
        process.terminate()


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int) -> None:
    """Wait until somebody listens."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"nobody listens on {port}")


SUITES = {"kombu": kombu, "dramatiq": dramatiq, "celery": celery}


def main() -> None:
    """Run what the arguments say; exit with 1 if a test failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="also tests that take minutes")
    parser.add_argument("suites", nargs="*", help="default: kombu dramatiq")
    options = parser.parse_args()
    passed = True
    for name in options.suites or ("kombu", "dramatiq"):
        with tempfile.TemporaryDirectory() as directory:
            passed &= SUITES[name](Path(directory), options.all)
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
