"""A TLS handshake in memory, which reads and checks a certificate: the library has no other way to parse one."""

from __future__ import annotations

import ssl
from typing import Any

from stiqueue.errors import InvalidRequest


def read_certificate(certificate: str, key: str) -> dict[str, Any]:
    """Return the fields of a certificate as `ssl.SSLSocket.getpeercert` does.

    Args:
        certificate: the path of the certificate, with its chain, in PEM.
        key: the path of its key, in PEM, without a password.

    Raises:
        InvalidRequest: a file cannot be read, the two do not fit together, or the certificate is not valid now.
    """
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client_side = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_side.check_hostname = False
    client_side.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its own certificate is enough to trust it
    try:
        server_side.load_cert_chain(certificate, key, password=_no_password)
        client_side.load_verify_locations(certificate)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        server = server_side.wrap_bio(to_server, to_client, server_side=True)
        client = client_side.wrap_bio(to_client, to_server)
        for side in (client, server, client):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return dict(client.getpeercert() or {})
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror or error
        raise InvalidRequest(f"tls_cert, tls_key: {certificate}, {key}: {why}", "BAD_OPTION") from error


def _no_password() -> str:
    raise ssl.SSLError(0, "the key has a password")
