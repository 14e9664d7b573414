"""TLS of a client's connection: the authorities it trusts and its own certificate."""

from __future__ import annotations

import os
import socket
import ssl
from dataclasses import dataclass

import grpc

from stiqueue.arguments import check_kind, check_text
from stiqueue.errors import InvalidRequest
from stiqueue.wire.credentials import read_bytes
from stiqueue.wire.handshake import shake_hands


@dataclass(frozen=True)
class TLS:
    """A client's TLS files. `TLS()` suffices if a public authority has signed the server's certificate."""

    ca: str | os.PathLike[str] | None = None
    """A PEM file with the authorities that the client trusts. None: the public authorities that come with gRPC."""
    cert: str | os.PathLike[str] | None = None
    """A PEM file with the client's certificate and its chain, for a server that requires one (mutual TLS)."""
    key: str | os.PathLike[str] | None = None
    """A PEM file with the key of `cert`."""
    server_name: str | None = None
    """The name in the server's certificate, if it differs from the client's `host`."""

    def __post_init__(self) -> None:
        """Check the types: `open` would take a number for a file descriptor.

        Raises:
            InvalidRequest: names the field.
        """
        for name, path in (("ca", self.ca), ("cert", self.cert), ("key", self.key)):
            if path is not None:
                check_kind(f"tls: {name}", path, (str, os.PathLike), "the path of a PEM file")
        if self.server_name is not None:
            check_text("tls: server_name", self.server_name, "BAD_OPTION")

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; return the credentials for `grpc.secure_channel`.

        Raises:
            InvalidRequest: a file cannot be read, or only one of `cert` and `key` is given.
        """
        if (self.cert is None) != (self.key is None):
            raise InvalidRequest("tls: cert and key are given together or not at all", "BAD_OPTION")
        credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(
            _read(self.ca), _read(self.key), _read(self.cert)
        )
        return credentials


def as_tls(tls: TLS | bool | str | os.PathLike[str] | None) -> TLS | None:
    """Return a client's argument `tls` as a `TLS`: True is `TLS()`, a path its `ca`; False or None: None."""
    if tls is None or isinstance(tls, TLS):
        return tls
    if isinstance(tls, bool):
        return TLS() if tls else None
    check_kind("tls", tls, (str, os.PathLike), "True, the path of a PEM file, or a TLS(...)")
    return TLS(ca=tls)


def speaks_tls(host: str, port: int, seconds: float) -> bool:
    """Return whether the server at `host` and `port` answers the first words of TLS within `seconds`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # nothing is told to it, so it may be anybody
    context.set_alpn_protocols(["h2"])
    try:
        with socket.create_connection((host, port), seconds) as connection:
            shake_hands(context, connection)
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it refuses this client, in the words of TLS
    except OSError:
        return False


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else read_bytes("tls", path)
