"""What a console is started with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from stiqueue.client.calls.tls import TLS
from stiqueue.errors import InvalidRequest
from stiqueue.wire.hosts import host_and_port, is_loopback

MAX_ORIGIN = 300
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]", re.ASCII)


@dataclass(frozen=True)
class WebOptions:
    """The server that a console shows, and where the console listens."""

    host: str = "127.0.0.1"
    """The server's address."""
    port: int = 1234
    """The server's port."""
    tls: TLS | None = None
    """How to encrypt the connection to the server."""
    token: str | None = field(default=None, repr=False)
    """The token with which everybody acts who reaches the console. None: each person logs in with their own."""
    timeout: float = 5.0
    """How long a question to the server may take, in seconds."""
    web_host: str = "127.0.0.1"
    """The address to listen on."""
    web_port: int = 8080
    """The port to listen on; 0: a free one."""
    web_origin: str = ""
    """The address under which browsers reach the console, such as ``https://queues.example.org``, behind a proxy."""
    web_tls_cert: str | None = None
    """The console's certificate and its chain (PEM)."""
    web_tls_key: str | None = None
    """The certificate's key (PEM)."""
    web_open: bool = False
    """Whether everybody who reaches the console may use it, where the server asks for no token."""

    def __post_init__(self) -> None:
        """Check what must fit together.

        Raises:
            InvalidRequest: it does not; says what to do.
        """
        if (self.web_tls_cert is None) != (self.web_tls_key is None):
            raise InvalidRequest("web_tls_cert, web_tls_key: give both or neither", "BAD_OPTION")
        if self.web_origin:
            _check_origin(self.web_origin)
        if self.is_local or self.web_open:
            return
        if self.token is not None:
            raise InvalidRequest(
                f"web_host: everyone who reaches {self.web_host} would act with the console's token; leave out the "
                "token, so that each person logs in with their own, or give --web-open",
                "BAD_OPTION",
            )
        if not self.is_encrypted:
            raise InvalidRequest(
                f"web_host: everyone on the way to {self.web_host} could read the tokens of those who log in; give "
                "--web-tls-cert and --web-tls-key, or --web-origin https://... where a proxy in front encrypts",
                "BAD_OPTION",
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches the console."""
        return is_loopback(self.web_host)

    @property
    def is_encrypted(self) -> bool:
        """Whether browsers reach the console by HTTPS."""
        return self.web_tls_cert is not None or self.web_origin.startswith("https://")

    @property
    def server(self) -> str:
        """The server's address, as people read it."""
        return host_and_port(self.host, self.port)

    def url(self, port: int) -> str:
        """Return the address to type into a browser, if the console listens on `port`."""
        if self.web_origin:
            return self.web_origin
        scheme = "https" if self.web_tls_cert else "http"
        return f"{scheme}://{host_and_port(self.web_host, port)}"


def _check_origin(origin: str) -> None:
    try:
        parts = urlsplit(origin)
        fits = (
            len(origin) <= MAX_ORIGIN
            and parts.scheme in ("http", "https")
            and origin == f"{parts.scheme}://{parts.netloc}"
            and _HOST.fullmatch(parts.netloc.removesuffix(f":{parts.port}"))
        )
    except ValueError:
        fits = False
    if not fits:
        raise InvalidRequest(
            f"web_origin: {origin[:MAX_ORIGIN]!r} is not https://NAME or https://NAME:PORT, without a path",
            "BAD_OPTION",
        )
