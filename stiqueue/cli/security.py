"""The options for servers with TLS and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stiqueue.tls import TLS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_FILE = click.Path(exists=True, dir_okay=False)

OPTIONS: list[Decorator] = [
    click.option("--tls", is_flag=True, envvar="STIQUEUE_TLS", help="Encrypt; the certificate is a public one."),
    click.option(
        "--tls-ca", type=_FILE, envvar="STIQUEUE_TLS_CA", help="Encrypt; this authority (PEM) signed the certificate."
    ),
    click.option(
        "--tls-client-cert", type=_FILE, envvar="STIQUEUE_TLS_CLIENT_CERT", help="Show this certificate (PEM)."
    ),
    click.option("--tls-client-key", type=_FILE, envvar="STIQUEUE_TLS_CLIENT_KEY", help="Its key (PEM)."),
    click.option(
        "--token-file",
        type=_FILE,
        envvar="STIQUEUE_TOKEN_FILE",
        help="Show the token in this file's first line. STIQUEUE_TOKEN has the token itself.",
    ),
    # Not to be typed: everybody on the machine sees the words of a command.
    click.option("--token", envvar="STIQUEUE_TOKEN", hidden=True),
]


def read_tls(given: dict[str, Any]) -> TLS | None:
    """Take the options for TLS out of a command's arguments; return what a client takes."""
    encrypt, ca = given.pop("tls"), given.pop("tls_ca")
    certificate, key = given.pop("tls_client_cert"), given.pop("tls_client_key")
    if not (encrypt or ca or certificate or key):
        return None
    return TLS(ca, certificate, key)


def read_token(given: dict[str, Any]) -> str | None:
    """Take the options for the token out of a command's arguments; return the token."""
    token, path = given.pop("token"), given.pop("token_file")
    if path is None:
        return str(token) if token else None
    lines = Path(path).read_text().splitlines()
    if not lines or not lines[0].strip():
        raise click.BadParameter(f"{path} has no token in its first line", param_hint="--token-file")
    return lines[0].strip()
