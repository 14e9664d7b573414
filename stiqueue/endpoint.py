"""A server as a client sees it: its address, how to encrypt, and the token to show."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from stiqueue.errors import InvalidRequest
from stiqueue.hosts import host_and_port, is_loopback
from stiqueue.tls import TLS
from stiqueue.wire import AUTHORIZATION_KEY

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # We retry by ourselves, with one request id and one deadline.
    ("grpc.enable_retries", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    # A name that pointed to a dead address is looked up again soon: by default not for 30 s, and then we have given up.
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A silent server is noticed after 8 s. Without the last option the client stops pinging when it is idle.
    ("grpc.keepalive_time_ms", 5_000),
    ("grpc.keepalive_timeout_ms", 3_000),
    ("grpc.http2.ping_timeout_ms", 3_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # Each channel is a connection of its own.
    ("grpc.use_local_subchannel_pool", 1),
]
"""The options of every channel of a client."""

CONNECT_SECONDS = 3.0
"""How long one try to connect may take, until the server's first word: four round trips with TLS, on a slow line."""


@dataclass(frozen=True)
class Endpoint:
    """One server."""

    host: str
    port: int
    tls: TLS | None = None
    token: str | None = field(default=None, repr=False)
    connect_seconds: float = CONNECT_SECONDS
    """How long one try to connect may take. Its name in gRPC tells of something else; without it, a second at most."""

    def __post_init__(self) -> None:
        """Check that the token can travel.

        Raises:
            InvalidRequest: everybody on the way could read it, or it is not one.
        """
        if self.token is None:
            return
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
        """What each call carries."""
        return ((AUTHORIZATION_KEY, f"Bearer {self.token}"),) if self.token else ()

    def channel(self, library: Any) -> Any:
        """Return a channel of `library`: `grpc` or `grpc.aio`.

        Raises:
            InvalidRequest: a file of `tls` cannot be read.
        """
        options = [*CHANNEL_OPTIONS, ("grpc.min_reconnect_backoff_ms", round(self.connect_seconds * 1_000))]
        if self.tls is None:
            return library.insecure_channel(str(self), options=options)
        if self.tls.server_name:
            options.append(("grpc.ssl_target_name_override", self.tls.server_name))
        return library.secure_channel(str(self), self.tls.credentials(), options=options)
