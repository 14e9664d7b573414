"""Where and how a server listens: its address, its encryption, and its options of gRPC."""

from __future__ import annotations

import errno
import socket

import grpc
import grpc.aio

from stiqueue.server import descriptors
from stiqueue.settings import Settings
from stiqueue.wire.hosts import host_and_port, is_loopback

HANDSHAKE_MS = 8_000
"""The time limit for a client's TLS and HTTP/2 handshakes."""

MOST_CONNECTIONS = 20_000
"""The default of `max_connections`: twice the default of `max_consumers`, to leave room for producers."""
METADATA_BYTES = 16 << 10
"""The largest headers of a call. With its own default, gRPC refuses some calls at random above half of this."""


def lacks(settings: Settings) -> str:
    """Return the protection that a server lacks although other machines can reach it; empty: nothing is missing."""
    if is_loopback(settings.host) or settings.tls_client_ca:
        return ""
    missing = {"encryption": settings.tls_cert is None, "tokens": settings.tokens is None}
    return " and without ".join(name for name, is_missing in missing.items() if is_missing)


def check_free(host: str, port: int) -> None:
    """Check that nobody listens on `port` at any of the addresses of `host`.

    gRPC is content with one free address: if "localhost" is taken on IPv4, it would serve only IPv6, and clients would
    reach one server or the other.

    Raises:
        OSError: an address is in use or not allowed; the text is that of the operating system.
    """
    if port == 0:
        return
    for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    # As gRPC does: all of IPv6 includes all of IPv4.
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
                probe.bind(address)
                probe.listen()
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES, errno.EPERM):
                raise


def bind(server: grpc.aio.Server, host: str, port: int, credentials: grpc.ServerCredentials | None) -> int:
    """Let `server` listen, with TLS if there are credentials; return the port.

    Raises:
        OSError: the address cannot be listened on.
    """
    where = host_and_port(host, port)
    try:
        check_free(host, port)
        try:
            if credentials is None:
                return server.add_insecure_port(where)
            return server.add_secure_port(where, credentials)
        except RuntimeError:  # gRPC does not say why: perhaps somebody was quicker
            check_free(host, port)
            raise OSError(None, "address not available") from None
    except OSError as error:
        raise OSError(f"cannot listen on {where}: {error.strerror or error}") from error


def most_connections(settings: Settings) -> int:
    """Return the connection limit: `max_connections`, or less if this process lacks file descriptors."""
    return descriptors.connections_within(settings.max_connections or MOST_CONNECTIONS)


def channel_options(settings: Settings) -> list[tuple[str, int]]:
    """Return gRPC's options for a server. gRPC silently ignores a misspelled name; tests check the effects."""
    keepalive, timeout = int(settings.keepalive * 1000), int(settings.keepalive_timeout * 1000)
    return [
        # A second server on the same port is an error instead of taking half of the clients.
        ("grpc.so_reuseport", 0),
        # The next one is closed before its handshake, and file descriptors are left for all else.
        ("grpc.max_allowed_incoming_connections", most_connections(settings)),
        ("grpc.max_receive_message_length", settings.buff_size),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_BYTES),
        ("grpc.absolute_max_metadata_size", METADATA_BYTES),
        # One hostile connection cannot starve the others; our own client opens another when it needs more.
        ("grpc.max_concurrent_streams", settings.max_streams),
        # The defaults (1,000 and 3,000) cancel calls at random in a burst.
        ("grpc.server.max_pending_requests", settings.max_pending),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_pending * 2),
        # Who connects and says nothing is not waited for two minutes, which is the default.
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        # A silent peer is noticed after keepalive + keepalive_timeout. The ping's own time-out is a third option,
        # without which a stopped process is noticed only after a minute.
        ("grpc.keepalive_time_ms", keepalive),
        ("grpc.keepalive_timeout_ms", timeout),
        ("grpc.http2.ping_timeout_ms", timeout),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Clients may ping every second, also when idle. Half of it, because a ping that was held up on its way arrives
        # closer to the next one.
        ("grpc.http2.min_ping_interval_without_data_ms", 500),
    ]
