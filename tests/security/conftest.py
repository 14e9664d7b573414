"""A pretended authority, the certificates it signs, and servers that use them."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme

from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

NOW = datetime.datetime.now(datetime.timezone.utc)
DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates and writes them into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self._ca = trustme.CA()
        self.path = str(folder / "ca.pem")
        self._ca.cert_pem.write_to_path(self.path)

    def sign(self, name: str, *identities: str, begins: float = -1, ends: float = 100) -> tuple[str, str]:
        """Write a certificate, valid from `begins` to `ends` in days from now; return its path and its key's."""
        signed = self._ca.issue_cert(
            *(identities or ("localhost", "127.0.0.1")), not_before=NOW + begins * DAY, not_after=NOW + ends * DAY
        )
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in signed.cert_chain_pems))
        key.touch(0o600)
        key.write_bytes(signed.private_key_pem.bytes())
        return str(certificate), str(key)

    @property
    def pem(self) -> bytes:
        return Path(self.path).read_bytes()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority")


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    """An authority that nobody trusts."""
    return Authority(tmp_path / "stranger")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def secure_channel(
    stack: ExitStack, port: int, authority: Authority, pair: tuple[str, str] | None = None, host: str = "localhost"
) -> grpc.Channel:
    """Return a connection over TLS that trusts `authority` and shows the certificate of `pair`."""
    certificate, key = (Path(path).read_bytes() for path in pair) if pair else (None, None)
    credentials = grpc.ssl_channel_credentials(authority.pem, key, certificate)
    options: list[tuple[str, Any]] = [("grpc.use_local_subchannel_pool", 1)]
    return stack.enter_context(grpc.secure_channel(f"{host}:{port}", credentials, options))


def secure_stub(
    stack: ExitStack, port: int, authority: Authority, pair: tuple[str, str] | None = None, host: str = "localhost"
) -> QueueServiceStub:
    """Return a stub on such a connection."""
    return QueueServiceStub(secure_channel(stack, port, authority, pair, host))
