"""The Dockerfile, followed step by step without Docker: each stage is a plain directory with a Python in it."""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
COPIED_FROM_STAGE = re.compile(r"--mount=type=bind,from=(\S+),source=(\S+),target=(\S+)\s+")
ABSOLUTE_PATH = re.compile(r"(?<![^\s'\"=])/(?=\w)")


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, comments left out and long lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


class Stage:
    """One image while it is built: a directory that stands for its root, a working directory and an environment."""

    def __init__(self, root: Path) -> None:
        self.root = self.workdir = root
        subprocess.run([sys.executable, "-m", "venv", root / "usr/local"], check=True)
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "STIQUEUE_"))}
        self.environment = {**ours, "PATH": f"{root}/usr/local/bin:{os.environ['PATH']}"}

    def path(self, inside: str) -> Path:
        return self.root / inside[1:] if inside.startswith("/") else self.workdir / inside

    def cd(self, inside: str) -> None:
        self.workdir = self.path(inside)
        self.workdir.mkdir(parents=True, exist_ok=True)

    def run(self, command: list[str], **more: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.workdir, env={**self.environment, **more}, check=False, capture_output=True, text=True
        )


def build(tmp_path: Path) -> tuple[Stage, dict[str, str]]:
    """Follow the Dockerfile; return its last stage and the last value of every instruction."""
    stages: dict[str, Stage] = {}
    seen: dict[str, str] = {}
    for number, (word, rest) in enumerate(instructions()):
        if word == "FROM":
            stage = Stage(tmp_path / f"stage{number}")
            stages[rest.partition(" AS ")[2]] = stage
        elif word == "WORKDIR":
            stage.cd(rest)
        elif word == "COPY":
            *sources, target = rest.split()
            for source in sources:
                copy(ROOT / source, stage.path(target) if (ROOT / source).is_dir() else stage.path(target) / source)
        elif word == "RUN":
            for name, source, target in COPIED_FROM_STAGE.findall(rest):
                copy(stages[name].path(source), stage.path(target))
            command = ABSOLUTE_PATH.sub(f"{stage.root}/", COPIED_FROM_STAGE.sub("", rest))
            if os.geteuid() != 0:
                command = "chown() { :; }; " + command
            done = stage.run(["sh", "-c", command])
            assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        elif word == "ENV":
            stage.environment |= dict(part.split("=", 1) for part in shlex.split(rest))
        else:
            assert word in {"CMD", "EXPOSE", "HEALTHCHECK", "USER", "VOLUME"}, f"this test does not know {word}"
        seen[word] = rest
    return stage, seen


def copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    else:
        shutil.copy(source, target)


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def test_everything_copied_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {source for word, rest in instructions() if word == "COPY" for source in rest.split()[:-1]}
    assert copied == let_through


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(sys.platform == "win32", reason="the steps are shell commands")
def test_the_steps_make_a_server_that_is_healthy(tmp_path: Path) -> None:
    image, seen = build(tmp_path)
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", seen["USER"]), "must not run as root"
    assert seen["VOLUME"] == "/data"
    assert seen["EXPOSE"] == "1234"
    assert image.workdir == image.path("/data")

    check = json.loads(seen["HEALTHCHECK"].partition("CMD ")[2])
    port = {"STIQUEUE_PORT": free_port()}
    assert image.run(check, **port).returncode != 0, "healthy before there is a server"
    server = subprocess.Popen(
        json.loads(seen["CMD"]), cwd=image.workdir, env={**image.environment, **port}, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 30
        while (health := image.run(check, **port)).returncode != 0:
            assert server.poll() is None, server.stderr and server.stderr.read()
            assert time.monotonic() < deadline, health.stdout + health.stderr
            time.sleep(0.1)
        server.send_signal(signal.SIGTERM)  # what `docker stop` sends
        assert server.wait(timeout=10) == 0
    finally:
        server.kill()
        server.communicate()
