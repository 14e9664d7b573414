"""The server's certificate: checked when it is read, read again when its files change."""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from typing import Any

import grpc

from stiqueue.credential_files import FileWatch, read_bytes, warn_of_readers
from stiqueue.errors import InvalidRequest
from stiqueue.settings import Settings

WARNING_DAYS = 14
"""How long before its end a certificate is warned of."""


@dataclass(frozen=True)
class CertificateFiles:
    """Where the certificate (with its chain), its key and the authority of clients are, all in PEM."""

    certificate: str
    key: str
    client_ca: str | None = None
    """Clients must show a certificate that this authority has signed."""


class Certificates:
    """Gives gRPC the server's certificate. gRPC asks at each handshake, from threads of its own."""

    def __init__(self, files: CertificateFiles, logger: logging.Logger) -> None:
        """Read and check the files.

        Raises:
            InvalidRequest: one of them cannot be read, or they do not fit together.
        """
        self._files = files
        self._logger = logger
        self._watch = FileWatch(files.certificate, files.key, *([files.client_ca] if files.client_ca else []))
        self._configuration = self._read()
        warn_of_readers("tls_key", files.key, logger)

    def credentials(self) -> grpc.ServerCredentials:
        """Return what `add_secure_port` takes."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration, self._fetch, require_client_authentication=self._files.client_ca is not None
        )
        return credentials

    def _fetch(self) -> Any:
        """Return the new configuration, or None where nothing has changed. One that is wrong changes nothing."""
        if not self._watch.has_changed():
            return None
        try:
            self._configuration = self._read()
        except InvalidRequest as error:
            self._logger.error("%s; the certificate stays as it was", error)
            return None
        self._logger.info("tls: read the certificate again")
        return self._configuration

    def warn_of_end(self) -> None:
        """Warn when the certificate ends within 14 days, or is no longer valid."""
        try:
            self._check()
        except InvalidRequest as error:
            self._logger.error("%s", error)

    def _check(self) -> None:
        ends = check_pair(self._files.certificate, self._files.key)
        days = (ends - time.time()) / 86_400
        if days < WARNING_DAYS:
            when = time.strftime("%Y-%m-%d", time.gmtime(ends))
            self._logger.warning("tls_cert: %s ends on %s", self._files.certificate, when)

    def _read(self) -> Any:
        self._check()
        ca = None if self._files.client_ca is None else read_bytes("tls_client_ca", self._files.client_ca)
        pair = (read_bytes("tls_key", self._files.key), read_bytes("tls_cert", self._files.certificate))
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)


def check_pair(certificate: str, key: str) -> float:
    """Check that a certificate is valid now and belongs to its key; return when it ends, in seconds since 1970.

    Both sides of a handshake are played in memory: the library then compares, and reads the dates.

    Raises:
        InvalidRequest: it is not; says why.
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
        found = client.getpeercert()
    except OSError as error:  # ssl.SSLError is one
        why = getattr(error, "verify_message", None) or getattr(error, "reason", None) or error.strerror or error
        raise InvalidRequest(f"tls_cert, tls_key: {certificate}, {key}: {why}", "BAD_OPTION") from error
    assert found is not None
    return float(ssl.cert_time_to_seconds(str(found["notAfter"])))


def certificates_for(settings: Settings, logger: logging.Logger) -> Certificates | None:
    """Return the certificates that a server's options ask for; None: no encryption.

    Raises:
        InvalidRequest: a file cannot be read, or they do not fit together.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return Certificates(files, logger)


def _no_password() -> str:
    raise ssl.SSLError(0, "the key has a password")
