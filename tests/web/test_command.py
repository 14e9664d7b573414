"""`stiqueue web`, and `stiqueue serve --web-port`."""

from __future__ import annotations

import os
import re
import signal
import ssl
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner
from security.conftest import Authority
from support.ports import free_port
from support.waiting import PATIENCE, until

from stiqueue import SQClient, SQServer
from stiqueue.cli import serve, web
from stiqueue.web.options import WebOptions
from stiqueue.web.serving import WebServer


@contextmanager
def command(*arguments: object, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Run the command; kill it in the end."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("STIQUEUE_")}
    with subprocess.Popen(
        [sys.executable, "-m", "stiqueue", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**clean, **(environment or {})},
    ) as process:
        watchdog = threading.Timer(PATIENCE * 2, process.kill)
        watchdog.start()
        try:
            yield process
        finally:
            watchdog.cancel()
            process.kill()


def address(process: subprocess.Popen[str]) -> str:
    """Return the address that the command says."""
    assert process.stderr is not None
    line = process.stderr.readline()
    found = re.search(r" at (https?://\S+)", line)
    assert found is not None, line
    return found[1]


def read(url: str, context: ssl.SSLContext | None = None) -> str:
    with urllib.request.urlopen(url, timeout=PATIENCE, context=context) as answer:
        text: str = answer.read().decode()
        return text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_console_says_where_it_is_and_ends_at_a_signal(server: SQServer, number: signal.Signals) -> None:
    with SQClient(port=server.port) as client:
        client.enq("x", queue="jobs")
    with command("web", "--port", server.port, "--web-port", 0) as process:
        url = address(process)
        assert 'id="row-jobs"' in read(url)
        stream = urllib.request.urlopen(f"{url}/live", timeout=PATIENCE)
        assert stream.readline().startswith(b"data: ")
        process.send_signal(number)
        assert (process.communicate(timeout=PATIENCE)[1], process.returncode) == ("", 0)
        stream.close()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--web-host", "0.0.0.0"], 2, "--web-tls-cert"),
        (["--web-host", "0.0.0.0", "--web-origin", "https://queues.example.org"], 2, "asks for no token"),
        (["--web-host", "192.0.2.1", "--web-open"], 1, "cannot listen on 192.0.2.1"),
        (["--web-tls-cert", __file__], 2, "both or neither"),
        (["--web-tls-cert", __file__, "--web-tls-key", __file__], 2, "web_tls_cert, web_tls_key"),
        (["--web-port", "70000"], 2, "--web-port"),
    ],
)
def test_what_cannot_be_served_is_said_in_one_line(
    server: SQServer, arguments: list[str], code: int, words: str
) -> None:
    with command("web", "--port", server.port, "--web-port", 0, *arguments) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, len(errors.splitlines())) == (code, 1), errors
    assert words in errors


def test_a_port_in_use_is_said(server: SQServer) -> None:
    with command("web", "--port", server.port, "--web-port", server.port) as process:
        _, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, "Address already in use" in errors) == (1, True)


def test_the_console_encrypts(server: SQServer, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.sign("console", "127.0.0.1")
    arguments = ("--web-tls-cert", cert, "--web-tls-key", key)
    with command("web", "--port", server.port, "--web-port", 0, *arguments) as process:
        url = address(process)
        assert url.startswith("https://")
        assert "StiQueue" in read(url, ssl.create_default_context(cafile=authority.path))


@pytest.mark.parametrize("encrypted", [False, True])
def test_a_server_starts_its_console_and_takes_it_along(tmp_path: Path, encrypted: bool) -> None:
    port, options, context = free_port(), [], None
    if encrypted:
        authority = Authority(tmp_path / "authority")
        cert, key = authority.sign("server", "queues.example.org", "127.0.0.1")
        options = ["--tls-cert", cert, "--tls-key", key]
        context = ssl.create_default_context(cafile=authority.path)
    with command("serve", "--port", port, "--data", ":memory:", "--web-port", 0, *options) as process:
        url = address(process)
        assert process.stderr is not None
        assert "StiQueue" in process.stderr.readline()
        until(lambda: "No queue holds messages" in read(url, context))
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
        assert process.returncode == 0

    def is_gone() -> bool:
        try:
            read(url, context)
        except OSError:
            return True
        return False

    until(is_gone)


def test_a_console_ends_with_a_server_that_is_killed() -> None:
    with command("serve", "--port", free_port(), "--data", ":memory:", "--web-port", 0) as process:
        url = address(process)
        process.kill()
        process.wait(PATIENCE)

        def is_gone() -> bool:
            try:
                read(f"{url}/healthz")
            except OSError:
                return True
            return False

        until(is_gone)


def test_a_console_that_is_stopped_before_it_serves_ends() -> None:
    web = WebServer(WebOptions(port=free_port(), web_port=0))
    web.bind()
    web.stop()
    thread = threading.Thread(target=web.run, name="stiqueue-web", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "0"], "--web-port"),
        (["--web-host", "0.0.0.0", "--web-origin", "https://queues.example.org"], "--tokens or --web-open"),
        (["--web-origin", "nonsense"], "web_origin"),
    ],
)
def test_a_server_does_not_start_with_a_console_that_cannot(arguments: list[str], words: str) -> None:
    port = free_port()
    with command("serve", "--port", port, "--data", ":memory:", "--web-port", 0, *arguments) as process:
        output, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode in (1, 2)
    assert words in errors
    assert "Traceback" not in output + errors


@pytest.mark.parametrize(
    "arguments", [["web"], ["serve", "--data", ":memory:", "--web-port", "0"]], ids=lambda each: each[0]
)
def test_a_missing_package_is_said(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "find_spec", lambda name: None if name == "uvicorn" else name)
    name, *options = arguments
    done = CliRunner().invoke({"web": web.web, "serve": serve.serve}[name], options)
    assert done.exit_code == 1
    assert done.output == "Error: the console needs uvicorn: pip install 'stiqueue[web]'\n"
