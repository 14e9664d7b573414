"""How a client encrypts its connection, and proves who it is."""

from __future__ import annotations

import os
from dataclasses import dataclass

import grpc

from stiqueue.credential_files import read_bytes
from stiqueue.errors import InvalidRequest


@dataclass(frozen=True)
class TLS:
    """What a client of a server with TLS needs. `TLS()` is enough where the server's certificate is a public one."""

    ca: str | os.PathLike[str] | None = None
    """A PEM file with the authorities that may have signed the server's certificate. None: those of gRPC."""
    cert: str | os.PathLike[str] | None = None
    """A PEM file with the client's own certificate and its chain, for a server that asks for one (mutual TLS)."""
    key: str | os.PathLike[str] | None = None
    """A PEM file with its key."""
    server_name: str | None = None
    """The name in the server's certificate, where that is not the host of the client."""

    def credentials(self) -> grpc.ChannelCredentials:
        """Read the files; return what `grpc.secure_channel` takes.

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
    """Return what a client's argument `tls` means: True: `TLS()`, a path: that of `TLS.ca`, False or None: none."""
    if tls is None or isinstance(tls, TLS):
        return tls
    if isinstance(tls, bool):
        return TLS() if tls else None
    return TLS(ca=tls)


def _read(path: str | os.PathLike[str] | None) -> bytes | None:
    return None if path is None else read_bytes("tls", path)
