"""A console in a thread, and one request to it as a program would make it."""

from __future__ import annotations

import http.client
import threading
from types import TracebackType
from typing import Any
from urllib.parse import urlencode

from support.waiting import PATIENCE

from stiqueue.web.options import WebOptions
from stiqueue.web.serving import WebServer


class Console:
    """A console on a free port, in a ``with`` block."""

    def __init__(self, server_port: int, **options: Any) -> None:
        self._web = WebServer(WebOptions(port=server_port, **{"web_port": 0, **options}))
        self._thread = threading.Thread(target=self._run, name="stiqueue-web", daemon=True)
        self._serves = threading.Event()
        self.port = 0

    def _run(self) -> None:
        self._web.run(self._serves.set)

    def __enter__(self) -> Console:
        self.port = self._web.bind()
        self._thread.start()
        assert self._serves.wait(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._web.stop()
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, form: dict[str, str] | None = None, method: str | None = None, **headers: str) -> Answer:
        """Make a request; with a `form` a POST from a page of the console. Headers are written with underscores."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        body = None
        if form is not None:
            body = urlencode(form)
            sent = {"origin": self.url, "content-type": "application/x-www-form-urlencoded", **sent}
        try:
            connection.request(method or ("GET" if form is None else "POST"), path, body, sent)
            response = connection.getresponse()
            return Answer(response.status, dict(response.getheaders()), response.read().decode())
        finally:
            connection.close()


class Answer:
    """What a console answered."""

    def __init__(self, status: int, headers: dict[str, str], text: str) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.text = text

    @property
    def cookie(self) -> str:
        """The name and value of the cookie that it set."""
        return self.headers["set-cookie"].partition(";")[0]
