"""TLS handshakes in memory: one reads and checks a certificate, one talks to a server over a plain socket."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from stiqueue.errors import InvalidRequest

READ_BYTES = 65_536
"""How much is read from a socket at once."""


def shake_hands(context: ssl.SSLContext, connection: socket.socket) -> ssl.SSLObject:
    """Do a client's part of a handshake on `connection`, which stays the caller's to close.

    `SSLContext.wrap_socket` would take the connection over, and leaves it open if the peer has reset it by then.

    Raises:
        OSError: as `connection` does.
        ssl.SSLError: the two do not agree, or the peer hangs up; it is an OSError as well.
    """
    received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(received, to_send)
    while True:
        try:
            session.do_handshake()
        except ssl.SSLWantReadError:
            connection.sendall(to_send.read())
            if data := connection.recv(READ_BYTES):
                received.write(data)
            else:
                received.write_eof()
        else:
            connection.sendall(to_send.read())
            return session


def read_certificate(certificate: str, key: str) -> dict[str, Any]:
    """Return the fields of a certificate as `ssl.SSLSocket.getpeercert` does: the library parses none by itself.

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
