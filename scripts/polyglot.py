"""Producers and workers of several languages on one server; run by scripts/test-clients.

For each pair: 1,000 messages from a producer of one language; a worker of the other is killed by SIGKILL in the middle,
a second one does the rest. Nothing may be lost, and nothing that was acked may come again.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stiqueue import SQClient
from stiqueue.testing import serving

EXAMPLES = Path(__file__).parents[1] / "examples"
MESSAGES = 1_000
BEFORE_KILL = 300
"""The worker is killed when it has done so many."""
WORK_MILLISECONDS = 1
BUILD_SECONDS = 1_200.0
RUN_SECONDS = 120.0
JARS = "target/*:target/dependency/*"


class Language:
    """How the example of a language is built and run."""

    def __init__(self, name: str, needs: Sequence[str], build: Sequence[str], producer: str, worker: str) -> None:
        self.name = name
        self.directory = EXAMPLES / name
        self._needs = needs
        self._build = build
        self._producer = producer
        self._worker = worker

    def missing(self) -> str:
        """Say what is not here, if anything."""
        return ", ".join(tool for tool in self._needs if shutil.which(tool) is None)

    def build(self) -> None:
        """Build it in its directory; raises CalledProcessError."""
        for command in self._build:
            subprocess.run(command.split(), cwd=self.directory, timeout=BUILD_SECONDS, check=True)

    def produce(self, target: str, queue: str) -> None:
        """Enqueue all messages."""
        command = [*self._producer.split(), target, queue, str(MESSAGES)]
        subprocess.run(command, cwd=self.directory, timeout=RUN_SECONDS, check=True, stdout=subprocess.DEVNULL)

    def work(self, target: str, queue: str) -> subprocess.Popen[str]:
        """Start a worker; it prints what it has done and ends when nothing is left."""
        command = [*self._worker.split(), target, queue, str(WORK_MILLISECONDS)]
        return subprocess.Popen(command, cwd=self.directory, stdout=subprocess.PIPE, text=True)


LANGUAGES = [
    Language(
        "python",
        needs=[],
        build=[],
        producer=f"{sys.executable} producer.py",
        worker=f"{sys.executable} worker.py",
    ),
    Language(
        "go",
        needs=["go", "buf"],
        build=["go mod download", "buf generate", "go build -o bin/ ./producer ./worker"],
        producer="bin/producer",
        worker="bin/worker",
    ),
    Language(
        "node",
        needs=["node", "npm"],
        build=["npm ci --no-audit --no-fund", "npm run build"],
        producer="node bin/producer.js",
        worker="node bin/worker.js",
    ),
    Language(
        "java",
        needs=["java", "mvn"],
        build=["mvn -q -B package"],
        producer=f"java -cp {JARS} example.Producer",
        worker=f"java -cp {JARS} example.Worker",
    ),
    Language(
        "rust",
        needs=["cargo"],
        build=["cargo build --locked"],
        producer="target/debug/producer",
        worker="target/debug/worker",
    ),
    Language(
        "cpp",
        needs=["cmake", "c++", "grpc_cpp_plugin", "pkg-config"],
        build=["cmake -B build", "cmake --build build"],
        producer="build/producer",
        worker="build/worker",
    ),
]


def run_pair(port: int, producer: Language, worker: Language) -> None:
    """Let one enqueue and the other work; raise AssertionError when something is lost or comes again."""
    queue, target = f"{producer.name}-{worker.name}", f"127.0.0.1:{port}"
    producer.produce(target, queue)
    with SQClient(port=port, queue=queue) as client:
        assert client.cnt() == MESSAGES, client.counts()
        with worker.work(target, queue) as victim:
            assert victim.stdout is not None
            done = list(itertools.islice(victim.stdout, BEFORE_KILL))
            victim.send_signal(signal.SIGKILL)
            done += victim.stdout
        assert victim.returncode == -signal.SIGKILL, "it was not in the middle"
        give_up = time.monotonic() + 10.0
        while client.counts().leased:
            assert time.monotonic() < give_up, "what the dead worker held is not given back"
            time.sleep(0.01)
        acked, left = client.counts().acked, client.cnt()
        assert acked + left == MESSAGES
        assert 0 < left <= MESSAGES - BEFORE_KILL + 1
        with worker.work(target, queue) as second:
            assert second.stdout is not None
            rest = list(second.stdout)
        assert second.returncode == 0
        assert len(rest) == left, "a message that was acked came again, or one that was not did not"
        assert set(map(int, done + rest)) == set(range(1, MESSAGES + 1)), "lost"
        assert client.queues().get(queue) is None


def main() -> int:
    wanted = sys.argv[1:] or [language.name for language in LANGUAGES]
    built: list[Language] = []
    failed = False
    for language in LANGUAGES:
        if language.name not in wanted:
            continue
        if missing := language.missing():
            print(f"{language.name}: left out, {missing} is missing")
            failed |= bool(os.environ.get("CI"))
            continue
        try:
            language.build()
            built.append(language)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{language.name}: cannot be built: {error}")
            failed = True
    with serving() as server:
        for producer, worker in itertools.product(built, built):
            begin = time.monotonic()
            try:
                run_pair(server.port, producer, worker)
                outcome = "nothing lost"
            except (AssertionError, subprocess.SubprocessError) as error:
                outcome = f"FAILED: {error}"
                failed = True
            print(f"{producer.name} -> {worker.name}: {outcome} ({time.monotonic() - begin:.1f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
