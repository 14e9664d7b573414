"""A server as a client reaches it: address, encryption and token."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from stiqueue.client.calls.diagnosis import Diagnosis
from stiqueue.client.calls.proxies import proxy_for
from stiqueue.client.calls.tls import TLS
from stiqueue.errors import InvalidRequest, Unauthenticated
from stiqueue.wire.hosts import host_and_port, is_loopback
from stiqueue.wire.metadata import AUTHORIZATION_KEY

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # We retry by ourselves, with one request id and one deadline.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # Look a name up again soon if its address is dead. The default is 30 s, when the client has given up.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # Each channel is a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
]
"""The options of every channel of a client."""

KEEPALIVE_SECONDS = 5.0
"""The default silence after which a client pings; it notices 3 s later that a server is gone."""

PINGS: list[tuple[str, Any]] = [
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    # Without these two, an idle client stops pinging.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
]
"""The options of a channel that pings."""

CONNECT_SECONDS = 3.0
"""How long one try to connect may take: with TLS, four round trips on a slow line."""


@dataclass(frozen=True)
class Endpoint:
    """One server."""

    host: str
    port: int
    tls: TLS | None = None
    token: str | None = field(default=None, repr=False)
    connect_seconds: float = CONNECT_SECONDS
    """How long one try to connect may take. gRPC calls it min_reconnect_backoff; its default is one second."""

    keepalive: float | None = KEEPALIVE_SECONDS
    """Seconds of silence after which the client pings the server; None: never."""

    def __post_init__(self) -> None:
        """Check the token.

        Raises:
            InvalidRequest: it is not a token, or everybody on the way could read it.
        """
        if self.token is None:
            return
        if not isinstance(self.token, str):
            kind = type(self.token).__name__
            raise InvalidRequest(f"token: it is of type {kind}; write a str, as in token.decode()", "BAD_OPTION")
        if self.token.strip() and self.token != self.token.rstrip("\r\n"):
            raise InvalidRequest(
                "token: it ends with a line break, as what is read of a file; write token.strip()", "BAD_OPTION"
            )
        if not self.token.isascii() or not self.token.isprintable() or not self.token.strip():
            raise InvalidRequest("token: it is not a line of ASCII characters", "BAD_OPTION")
        if self.tls is None and not is_loopback(self.host):
            raise InvalidRequest(
                f"token: everybody on the way to {self.host} could read it; tls is needed", "BAD_OPTION"
            )

    def __str__(self) -> str:
        return host_and_port(self.host, self.port)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The metadata of each call."""
        return ((AUTHORIZATION_KEY, f"Bearer {self.token}"),) if self.token else ()

    @property
    def detour(self) -> str:
        """The part of an error's text that names the proxy on the way; empty without one."""
        proxy = proxy_for(self.host)
        if proxy is None:
            return ""
        return f" through the proxy {proxy} [no_proxy={self.host} bypasses it]"

    def mismatch(self, details: str) -> Unauthenticated | None:
        """Return the error if a call with these `details` of gRPC will always fail, else None."""
        return None if self.tls is not None or self.detour else self._diagnosis.mismatch(details)

    @cached_property
    def _diagnosis(self) -> Diagnosis:
        return Diagnosis(self.host, self.port)

    def channel(self, library: Any) -> Any:
        """Return a channel of `library`: `grpc` or `grpc.aio`.

        Raises:
            InvalidRequest: a file of `tls` cannot be read.
        """
        options = [*CHANNEL_OPTIONS, ("grpc.min_reconnect_backoff_ms", round(self.connect_seconds * 1_000))]
        if self.keepalive is not None:
            options += [("grpc.keepalive_time_ms", round(self.keepalive * 1_000)), *PINGS]
        # By default gRPC sends even calls to this machine, token included, to the proxy of the environment.
        proxy = proxy_for(self.host)
        options.append(("grpc.enable_http_proxy", 0) if proxy is None else ("grpc.http_proxy", proxy.url))
        if self.tls is None:
            return library.insecure_channel(str(self), options=options)
        if self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return library.secure_channel(str(self), self.tls.credentials(), options=options)
