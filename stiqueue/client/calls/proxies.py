"""The HTTP proxy that the environment puts between a client and a server on another machine."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field
from urllib.parse import SplitResult, urlsplit

from stiqueue.wire.hosts import is_loopback

VARIABLES = ("grpc_proxy", "https_proxy", "http_proxy")
"""The variables that name a proxy; the first one that is set counts, and switches proxies off if it is empty."""
EXCEPTIONS = ("no_grpc_proxy", "no_proxy")
"""The variables that list hosts to reach without a proxy; the first one that is set counts."""


@dataclass(frozen=True)
class Proxy:
    """One proxy, and the variable that names it."""

    url: str = field(repr=False)
    """Its URL. It may hold a password, so it appears in no log and no error."""
    variable: str

    def __str__(self) -> str:
        return f"{urlsplit(self.url).netloc.rpartition('@')[2]} ({self.variable})"


def proxy_for(host: str) -> Proxy | None:
    """Return the proxy on the way to `host`; None for this machine, for exceptions, and where none is set.

    A value that is not an ``http://`` URL counts as none, as it does for gRPC.
    """
    variable = next((name for name in VARIABLES if name in os.environ), None)
    if variable is None or is_loopback(host) or _is_exception(host):
        return None
    url = os.environ[variable]
    return Proxy(url, variable) if _is_http(url) else None


def _is_http(url: str) -> bool:
    try:
        split: SplitResult = urlsplit(url)
    except ValueError:
        return False
    return split.scheme == "http" and bool(split.netloc.rpartition("@")[2])


def _is_exception(host: str) -> bool:
    variable = next((name for name in EXCEPTIONS if name in os.environ), None)
    listed = os.environ[variable].split(",") if variable else []
    return any(_covers(each.strip().lower(), host.lower()) for each in listed)


def _covers(entry: str, host: str) -> bool:
    """Whether an entry of `EXCEPTIONS` matches `host`: a domain (with subdomains), address, network, or ``*``."""
    if entry in ("*", host):
        return True
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        name = entry.removeprefix("*").removeprefix(".")
        return bool(name) and (host == name or host.endswith(f".{name}"))
