"""The options for TLS and tokens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from stiqueue.client.calls.tls import TLS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_FILE = click.Path(exists=True, dir_okay=False)


def options(prefix: str = "") -> list[Decorator]:
    """Return the options for one server, their names prefixed by `prefix`, such as ``to-``."""
    name, variable = f"--{prefix}", f"STIQUEUE_{prefix.replace('-', '_').upper()}"
    return [
        click.option(
            f"{name}tls", is_flag=True, envvar=f"{variable}TLS", help="Encrypt; trust the public authorities."
        ),
        click.option(
            f"{name}tls-ca",
            type=_FILE,
            envvar=f"{variable}TLS_CA",
            help="Encrypt; trust this authority (PEM).",
        ),
        click.option(
            f"{name}tls-client-cert",
            type=_FILE,
            envvar=f"{variable}TLS_CLIENT_CERT",
            help="Present this client certificate (PEM).",
        ),
        click.option(
            f"{name}tls-client-key",
            type=_FILE,
            envvar=f"{variable}TLS_CLIENT_KEY",
            help="The client certificate's key (PEM).",
        ),
        click.option(
            f"{name}token-file",
            type=_FILE,
            envvar=f"{variable}TOKEN_FILE",
            help=f"Send the token on this file's first line. Or set {variable}TOKEN to the token.",
        ),
        # Hidden, because every user of the machine can see command lines: set the variable instead.
        click.option(f"{name}token", envvar=f"{variable}TOKEN", hidden=True),
    ]


def read_tls(given: dict[str, Any], prefix: str = "") -> TLS | None:
    """Remove the TLS options from a command's arguments; return the client's TLS settings, if any."""
    encrypt, ca, certificate, key = (
        given.pop(f"{prefix}{name}") for name in ("tls", "tls_ca", "tls_client_cert", "tls_client_key")
    )
    if not (encrypt or ca or certificate or key):
        return None
    return TLS(ca, certificate, key)


def read_token(given: dict[str, Any], prefix: str = "") -> str | None:
    """Remove the token options from a command's arguments; return the token, if any."""
    token, path = given.pop(f"{prefix}token"), given.pop(f"{prefix}token_file")
    if path is None:
        return str(token) if token else None
    lines = Path(path).read_text().splitlines()
    if not lines or not lines[0].strip():
        raise click.BadParameter(
            f"{path} has no token on its first line", param_hint=f"--{prefix.replace('_', '-')}token-file"
        )
    return lines[0].strip()
