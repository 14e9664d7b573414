"""The server's certificate: checked when it is read, read again when its files change."""

from __future__ import annotations

import logging
import ssl
import time
from dataclasses import dataclass
from typing import Any

import grpc

from stiqueue.errors import InvalidRequest
from stiqueue.settings import Settings
from stiqueue.wire.credentials import FileWatch, read_bytes, warn_of_readers
from stiqueue.wire.handshake import read_certificate

WARNING_DAYS = 14
"""The server warns about a certificate that expires within this time."""


@dataclass(frozen=True)
class CertificateFiles:
    """The paths of the certificate (with its chain), its key and the authority of clients, all in PEM."""

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
        """Return the credentials for `add_secure_port`."""
        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration, self._fetch, require_client_authentication=self._files.client_ca is not None
        )
        return credentials

    def _fetch(self) -> Any:
        """Return the new configuration; None if the files have not changed or are invalid."""
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
        fields = read_certificate(self._files.certificate, self._files.key)
        ends = ssl.cert_time_to_seconds(str(fields["notAfter"]))
        days = (ends - time.time()) / 86_400
        if days < WARNING_DAYS:
            when = time.strftime("%Y-%m-%d", time.gmtime(ends))
            self._logger.warning("tls_cert: %s ends on %s", self._files.certificate, when)

    def _read(self) -> Any:
        self._check()
        ca = None if self._files.client_ca is None else read_bytes("tls_client_ca", self._files.client_ca)
        pair = (read_bytes("tls_key", self._files.key), read_bytes("tls_cert", self._files.certificate))
        return grpc.ssl_server_certificate_configuration([pair], root_certificates=ca)


def certificates_for(settings: Settings, logger: logging.Logger) -> Certificates | None:
    """Return the certificates that a server's options ask for; None: no encryption.

    Raises:
        InvalidRequest: a file cannot be read, or they do not fit together.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    files = CertificateFiles(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    return Certificates(files, logger)
