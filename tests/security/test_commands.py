"""The commands `stiqueue` and `python -m stiqueue.health` with a server that wants TLS and tokens."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.waiting import PATIENCE

from security.conftest import Authority
from stiqueue import SQServer

TOKEN = "a-good-token-0123456789"


@pytest.fixture
def server(authority: Authority, tmp_path: Path, stack: ExitStack) -> SQServer:
    (tmp_path / "tokens").write_text(f"{TOKEN} admin")
    (tmp_path / "mine").write_text(f"{TOKEN}\n")
    certificate, key = authority.sign("server")
    return stack.enter_context(
        SQServer(
            port=0,
            tls_cert=certificate,
            tls_key=key,
            tls_client_ca=authority.path,
            tokens=str(tmp_path / "tokens"),
        )
    )


@pytest.fixture
def files(authority: Authority) -> dict[str, str]:
    certificate, key = authority.sign("client", "me")
    return {"CA": authority.path, "CLIENT_CERT": certificate, "CLIENT_KEY": key}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STIQUEUE_")}
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=clean | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )


def test_a_command_is_told_by_options(server: SQServer, files: dict[str, str], tmp_path: Path) -> None:
    options = [f"--tls-{name.lower().replace('_', '-')}={path}" for name, path in files.items()]
    done = run("stiqueue", "enq", f"--port={server.port}", *options, f"--token-file={tmp_path / 'mine'}", "Hello")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_command_is_told_by_the_environment(server: SQServer, files: dict[str, str]) -> None:
    environment = {f"STIQUEUE_TLS_{name}": path for name, path in files.items()}
    done = run("stiqueue", "cnt", STIQUEUE_PORT=str(server.port), STIQUEUE_TOKEN=TOKEN, **environment)
    assert (done.returncode, done.stdout) == (0, "0\n")


def test_a_command_without_a_token_says_so_and_fails(server: SQServer, files: dict[str, str]) -> None:
    environment = {f"STIQUEUE_TLS_{name}": path for name, path in files.items()}
    done = run("stiqueue", "cnt", STIQUEUE_PORT=str(server.port), **environment)
    assert done.returncode != 0
    assert "no valid token" in done.stderr


def test_a_file_without_a_token_is_a_mistake(server: SQServer, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("\n")
    done = run("stiqueue", "cnt", f"--port={server.port}", f"--token-file={tmp_path / 'mine'}")
    assert done.returncode == 2
    assert "has no token on its first line" in done.stderr


def test_no_help_asks_for_a_token_on_the_command_line() -> None:
    assert "--token " not in run("stiqueue", "enq", "--help").stdout


def test_the_health_of_a_server_with_tls(server: SQServer, files: dict[str, str]) -> None:
    environment = {f"STIQUEUE_TLS_{name}": path for name, path in files.items()}
    done = run("stiqueue.health", f"--port={server.port}", **environment)
    assert (done.returncode, done.stdout) == (0, "SERVING\n")
    assert run("stiqueue.health", f"--port={server.port}").returncode == 1
