"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from .run import Run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Yield a run that records in a directory of its own."""
    with Run(tmp_path) as started:
        yield started


@pytest.fixture
def certificate(tmp_path: Path) -> list[str]:
    """The options of a server with TLS."""
    authority = trustme.CA()
    signed = authority.issue_cert("localhost", "127.0.0.1")
    signed.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    (tmp_path / "server.pem").chmod(0o600)
    return ["--tls-cert", str(tmp_path / "server.pem"), "--tls-key", str(tmp_path / "server.pem")]
