"""Producers and workers of several languages on one server; run by scripts/test-clients.

For each pair, a producer in one language enqueues 1,000 messages. A worker in the other is killed by SIGKILL in the
middle, and a second one does the rest. No message may be lost, and no acked message may come again. Where a language
has a caller, a worker in each such language answers it: each call gets its own answer, and nothing is left.

Each language also speaks to a server with TLS and a token, which is killed while its worker works, and starts again.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import trustme

from stiqueue import SQClient
from stiqueue.testing import serving

EXAMPLES = Path(__file__).parents[1] / "examples"
MESSAGES = 1_000
CALLS = 100
BEFORE_KILL = 300
"""The number of messages after which the worker is killed."""
PREFETCH = 10
"""That of each worker."""
WORK_MILLISECONDS = 1
BUILD_SECONDS = 1_200.0
RUN_SECONDS = 120.0
TOKEN = "an-example-of-a-token-for-tests"
JARS = "target/*:target/dependency/*"


class Language:
    """Builds and runs the example in one language."""

    def __init__(
        self, name: str, needs: Sequence[str], build: Sequence[str], producer: str, worker: str, caller: str = ""
    ) -> None:
        self.name = name
        self.directory = EXAMPLES / name
        self._needs = needs
        self._build = build
        self._producer = producer
        self._worker = worker
        self._caller = caller

    def missing(self) -> str:
        """Return the missing tools, if any."""
        return ", ".join(tool for tool in self._needs if shutil.which(tool) is None)

    def build(self) -> None:
        """Build it in its directory; raises CalledProcessError."""
        for command in self._build:
            subprocess.run(command.split(), cwd=self.directory, timeout=BUILD_SECONDS, check=True)

    def produce(self, target: str, queue: str, **environment: str) -> None:
        """Enqueue all messages."""
        command = [*self._producer.split(), target, queue, str(MESSAGES)]
        subprocess.run(
            command,
            cwd=self.directory,
            env=os.environ | environment,
            timeout=RUN_SECONDS,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    @property
    def calls(self) -> bool:
        """Whether it has a caller, and a worker that answers."""
        return bool(self._caller)

    def call(self, target: str, queue: str, count: int) -> subprocess.Popen[str]:
        """Start a caller; it prints the answers."""
        command = [*self._caller.split(), target, queue, str(count)]
        return subprocess.Popen(command, cwd=self.directory, stdout=subprocess.PIPE, text=True)

    def work(self, target: str, queue: str, **environment: str) -> subprocess.Popen[str]:
        """Start a worker; it prints the messages that it has done and ends when none is left."""
        command = [*self._worker.split(), target, queue, str(WORK_MILLISECONDS)]
        return subprocess.Popen(
            command, cwd=self.directory, env=os.environ | environment, stdout=subprocess.PIPE, text=True
        )


LANGUAGES = [
    Language(
        "python",
        needs=[],
        build=[],
        producer=f"{sys.executable} producer.py",
        worker=f"{sys.executable} worker.py",
        caller=f"{sys.executable} caller.py",
    ),
    Language(
        "go",
        needs=["go", "buf"],
        build=["go mod download", "buf generate", "go build -o bin/ ./producer ./pipe ./worker ./caller"],
        producer="bin/producer",
        worker="bin/worker",
        caller="bin/caller",
    ),
    Language(
        "node",
        needs=["node", "npm"],
        build=["npm ci --no-audit --no-fund", "npm run build"],
        producer="node bin/producer.js",
        worker="node bin/worker.js",
        caller="node bin/caller.js",
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
    """Let one language enqueue and the other work; raise AssertionError if a message is lost or comes again."""
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


def run_calls(port: int, caller: Language, worker: Language) -> None:
    """Let one language call and the other answer; raise AssertionError if a call gets no answer, or another's."""
    queue, target = f"{caller.name}-asks-{worker.name}", f"127.0.0.1:{port}"
    with SQClient(port=port, queue=queue) as client, caller.call(target, queue, CALLS) as asking:
        give_up = time.monotonic() + 10.0
        while not client.cnt():  # a worker ends when there was nothing for a second
            assert time.monotonic() < give_up, "the caller does not call"
            time.sleep(0.01)
        with worker.work(target, queue) as answering:
            answers, _ = asking.communicate(timeout=RUN_SECONDS)
            assert answers.split() == [str(number) for number in range(1, CALLS + 1)]
            assert answering.stdout is not None
            assert len(list(answering.stdout)) == CALLS
        left = {name: each for name, each in client.queues().items() if each.ready or each.leased}
        assert not left, left


class SecureServer:
    """A server with TLS and a token in a process of its own, which can be killed and started again."""

    def __init__(self, directory: Path) -> None:
        authority = trustme.CA()
        signed = authority.issue_cert("localhost")
        self.authority = directory / "authority.pem"
        authority.cert_pem.write_to_path(self.authority)
        certificate, key, self.tokens = (directory / name for name in ("server.pem", "server.key", "tokens"))
        certificate.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(signed.private_key_pem.bytes())
        self.tokens.touch(0o600)
        self.tokens.write_text(f"{TOKEN} admin\n")
        self._options = ["--tls-cert", certificate, "--tls-key", key, "--tokens", self.tokens]
        self._options += ["--data", directory / "stiqueue.db"]
        self.port = 0
        self._start()

    def _start(self) -> None:
        command = [sys.executable, "-m", "stiqueue.sqserver", "--port", str(self.port), *map(str, self._options)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if found := re.search(r" on 127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return
        raise AssertionError("the server does not start")

    @property
    def environment(self) -> Mapping[str, str]:
        """Tell an example how to connect."""
        return {"STIQUEUE_TLS_CA": str(self.authority), "STIQUEUE_TOKEN": TOKEN}

    def restart(self) -> None:
        """Kill it by SIGKILL and start it again on its port."""
        self.kill()
        self._start()

    def kill(self) -> None:
        with self._process:
            self._process.kill()


@contextmanager
def serving_securely() -> Iterator[SecureServer]:
    """Run a server with TLS and a token."""
    with tempfile.TemporaryDirectory() as directory:
        server = SecureServer(Path(directory))
        try:
            yield server
        finally:
            server.kill()


def run_restart(server: SecureServer, language: Language) -> None:
    """Kill the server while the language works; raise AssertionError if a message is lost or work does not go on."""
    queue, target = f"restart-{language.name}", f"localhost:{server.port}"
    language.produce(target, queue, **server.environment)
    with language.work(target, queue, **server.environment) as worker:
        assert worker.stdout is not None
        done = list(itertools.islice(worker.stdout, BEFORE_KILL))
        server.restart()
        done += worker.stdout
    assert worker.returncode == 0, worker.returncode
    assert set(map(int, done)) == set(range(1, MESSAGES + 1)), "lost"
    # What the server had sent ahead was read before the end of the stream: it may be worked on here and again.
    assert len(done) <= MESSAGES + PREFETCH, f"{len(done) - MESSAGES} came again"
    with SQClient("localhost", server.port, queue=queue, tls=str(server.authority), token=TOKEN) as client:
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
        pairs = [(run_pair, "->", first, second) for first, second in itertools.product(built, built)]
        callers = [language for language in built if language.calls]
        pairs += [(run_calls, "asks", first, second) for first, second in itertools.product(callers, callers)]
        for run, does, first, second in pairs:
            begin = time.monotonic()
            try:
                run(server.port, first, second)
                outcome = "nothing lost"
            except (AssertionError, subprocess.SubprocessError) as error:
                outcome = f"FAILED: {error}"
                failed = True
            print(f"{first.name} {does} {second.name}: {outcome} ({time.monotonic() - begin:.1f} s)", flush=True)
    with serving_securely() as secure:
        for language in built:
            begin = time.monotonic()
            try:
                run_restart(secure, language)
                outcome = "nothing lost"
            except (AssertionError, subprocess.SubprocessError) as error:
                outcome = f"FAILED: {error}"
                failed = True
            seconds = time.monotonic() - begin
            print(f"{language.name}, TLS, a token, a killed server: {outcome} ({seconds:.1f} s)", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
