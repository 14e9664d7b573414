"""What comes before every page: whose requests are served at all, and what browsers are told to refuse."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stiqueue.web.options import WebOptions

MAX_BODY_BYTES = 16 << 20
"""The largest form: a message of 4 MiB, encoded."""

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
"""Nothing inline, nothing from elsewhere."""

HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class Safety:
    """Refuses requests to other names, changes from other origins and forms that are too large; sets headers."""

    def __init__(self, app: ASGIApp, options: WebOptions) -> None:
        """Stand before `app`."""
        self._app = app
        self._names = {"localhost"}
        if options.web_origin:
            self._names.add(urlsplit(options.web_origin).hostname or "")
        self._names.add(options.web_host.lower())
        self._hsts = options.web_tls_cert is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refusal = self._refusal(scope["method"], headers)
        if refusal is not None:
            status, text = refusal
            await PlainTextResponse(text + "\n", status)(scope, receive, self._adding(send))
            return
        await self._app(scope, receive, self._adding(send))

    def _refusal(self, method: str, headers: Headers) -> tuple[int, str] | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._knows(hosts[0]):
            return 421, (
                "This console does not answer to that name. Behind a proxy, start it with --web-origin and the address "
                "that browsers use."
            )
        if method in ("GET", "HEAD"):
            return None
        if method != "POST":
            return 405, "This console knows GET, HEAD and POST."
        if not is_same_origin(headers):
            return 403, "A change must come from a page of this console."
        length = headers.get("content-length", "")
        if not length.isdecimal():
            return 411, "A change must say its length."
        if int(length) > MAX_BODY_BYTES:
            return 413, f"A form may have {MAX_BODY_BYTES >> 20} MiB."
        return None

    def _knows(self, host: str) -> bool:
        """Whether a ``Host`` is ours. An address is: only a name can be made to point here by somebody else."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _adding(self, send: Send) -> Send:
        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
                if self._hsts:
                    headers.setdefault("strict-transport-security", "max-age=31536000")
            await send(message)

        return add


def is_same_origin(headers: Headers) -> bool:
    """Whether a browser says that a request comes from a page of the same origin.

    Browsers send ``Sec-Fetch-Site`` to HTTPS and to this machine, and ``Origin`` with every POST.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    if site is not None and site != "same-origin":
        return False
    if origin is not None:
        return _netloc(origin) == headers.get("host", "").lower()
    return site is not None


def _netloc(origin: str) -> str:
    parts: Iterable[str] = origin.partition("://")
    return list(parts)[2].lower()
