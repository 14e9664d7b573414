"""A console behind nginx and Caddy, with the settings of docs/console.md."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from security.conftest import Authority
from support.ports import free_port
from support.services import missing
from support.waiting import PATIENCE, until

from stiqueue import SQServer
from web.console import Console

PAGE = Path(__file__).parents[2] / "docs/console.md"
NAME, TOKEN = "queues.example.org", "reader-" + "r" * 20


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Named(http.client.HTTPSConnection):
    """A connection to this machine under the name of another."""

    def connect(self) -> None:
        self.sock = self._context.wrap_socket(  # type: ignore[attr-defined]
            socket.create_connection(("127.0.0.1", self.port), PATIENCE), server_hostname=self.host
        )


PROXIES = {
    "nginx": (
        ["nginx", "-p", ".", "-e", "stderr", "-c", "settings"],
        "daemon off; pid nginx.pid; events {{}} http {{ access_log off; {} }}",
        {
            "listen 443": "listen 127.0.0.1:{port}",
            "/etc/ssl/queues.pem": "{certificate}",
            "/etc/ssl/queues.key": "{key}",
            "127.0.0.1:8080": "127.0.0.1:{console}",
        },
    ),
    "caddy": (
        ["caddy", "run", "--adapter", "caddyfile", "--config", "settings"],
        "{{\nadmin off\nauto_https disable_redirects\n}}\n{}",
        {
            # With its own certificate instead of one that it would ask the world for.
            "queues.example.org {": "queues.example.org:{port} {\nbind 127.0.0.1\ntls {certificate} {key}",
            "127.0.0.1:8080": "127.0.0.1:{console}",
        },
    ),
}
"""How each is started, what stands around its settings, and what is replaced in them."""


@pytest.fixture(params=PROXIES)
def proxied(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Named]:
    """A connection to a proxy before a console whose server asks for tokens."""
    command, around, replaced = PROXIES[request.param]
    if shutil.which(command[0]) is None:
        missing(command[0])
    authority, port = Authority(tmp_path / "authority"), free_port()
    certificate, key = authority.sign("proxy", NAME)
    tokens = tmp_path / "tokens"
    tokens.touch(0o600)
    tokens.write_text(f"{TOKEN} peek\n")
    (settings,) = re.findall(rf"```{request.param}\n(.*?)```", PAGE.read_text(), re.S)
    with (
        SQServer(port=free_port(), tokens=str(tokens)) as server,
        Console(server.port, web_origin=f"https://{NAME}") as console,
    ):
        for old, new in replaced.items():
            assert old in settings
            for name, value in {"port": port, "certificate": certificate, "key": key, "console": console.port}.items():
                new = new.replace(f"{{{name}}}", str(value))
            settings = settings.replace(old, new)
        (tmp_path / "settings").write_text(around.format(settings))
        with subprocess.Popen(command, cwd=tmp_path, env={**os.environ, "HOME": str(tmp_path)}) as process:
            try:
                until(lambda: accepts(port) or process.poll() is not None)
                assert process.poll() is None
                connection = Named(NAME, port, context=ssl.create_default_context(cafile=authority.path))
                yield connection
                connection.close()
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(PATIENCE)


def test_people_log_in_and_watch_through_a_proxy(proxied: Named) -> None:
    host = f"{NAME}:{proxied.port}"  # it listens elsewhere than on 443 here, and browsers would say so
    form = {"content-type": "application/x-www-form-urlencoded", "origin": f"https://{host}", "host": host}
    proxied.request("POST", "/login", urlencode({"token": TOKEN}), form)
    answer = proxied.getresponse()
    answer.read()
    cookie = answer.headers["set-cookie"]
    assert (answer.status, cookie.startswith("__Host-stiqueue="), "Secure" in cookie) == (303, True, True)
    proxied.request("GET", "/live", headers={"cookie": cookie.partition(";")[0]})
    stream = proxied.getresponse()
    assert stream.status == 200
    assert "dot ok" in json.loads(stream.readline().removeprefix(b"data: "))["parts"]["status"]
    assert stream.readline() == b"\n"
    assert stream.readline() == b":\n"  # a second later nothing has changed
    stream.close()
