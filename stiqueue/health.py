"""Asks a server whether it is serving: ``python -m stiqueue.health`` ends with 0 when it is, else with 1.

For container health checks, where nothing but Python is at hand. Elsewhere any client of ``grpc.health.v1`` does.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from stiqueue import standard
from stiqueue.arguments import check_host, check_port, check_seconds
from stiqueue.client.calls.endpoint import Endpoint
from stiqueue.client.calls.proxies import proxy_for
from stiqueue.client.calls.tls import TLS
from stiqueue.errors import InvalidRequest
from stiqueue.limits import MAX_DELAY
from stiqueue.wire.handshake import shake_hands

SECONDS = 3.0


@dataclass(frozen=True)
class AsShown(TLS):
    """Trusts whatever certificate the server showed: it is told nothing that is worth stealing."""

    pem: str = ""

    def credentials(self) -> grpc.ChannelCredentials:
        """Return what `grpc.secure_channel` takes."""
        pair = [Path(path).read_bytes() if path else None for path in (self.key, self.cert)]
        credentials: grpc.ChannelCredentials = grpc.ssl_channel_credentials(self.pem.encode(), *pair)
        return credentials


def as_shown(host: str, port: int, timeout: float, cert: str | None = None, key: str | None = None) -> AsShown:
    """Ask a server for its certificate; `cert` and `key` are those to show to one that demands them.

    Raises:
        OSError: it shows none, or one that is not valid now; or `cert` or `key` cannot be read.
    """
    anything, same = (ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) for _ in range(2))
    anything.check_hostname = same.check_hostname = False
    anything.verify_mode = ssl.CERT_NONE
    same.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # its own certificate is enough to trust it
    for context in (anything, same):
        if cert:
            context.load_cert_chain(cert, key)
    with socket.create_connection((host, port), timeout) as connection:
        pem = ssl.DER_cert_to_PEM_cert(shake_hands(anything, connection).getpeercert(binary_form=True) or b"")
    same.load_verify_locations(cadata=pem)
    with socket.create_connection((host, port), timeout) as connection:  # again: Python reads only what it has verified
        names: Any = (shake_hands(same, connection).getpeercert() or {}).get("subjectAltName", ())
    name = names[0][1].replace("*", "any") if names else None
    return AsShown(cert=cert, key=key, server_name=name, pem=pem)


def is_serving(host: str, port: int, timeout: float = SECONDS, tls: TLS | None = None) -> bool:
    """Return whether the server at `host` and `port` answers SERVING within `timeout` seconds.

    Raises:
        InvalidRequest: an argument is out of range, or a file of `tls` cannot be read.
    """
    check_host(host)
    check_port(port)
    check_seconds("timeout", timeout, MAX_DELAY)
    with Endpoint(host, port, tls).channel(grpc) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=timeout)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _of_server(host: str, port: int, environment: Mapping[str, str]) -> TLS | None:
    """Return how to reach a server of which the environment has the options, as in its own container.

    Raises:
        OSError: it cannot be reached.
    """
    cert, key = environment.get("STIQUEUE_TLS_CERT"), environment.get("STIQUEUE_TLS_KEY")
    if not cert:
        return None
    demands = bool(environment.get("STIQUEUE_TLS_CLIENT_CA"))
    return as_shown(host, port, SECONDS, *((cert, key) if demands else ()))


def main() -> None:
    """Run the command; its exit code tells whether the server serves, also where nobody reads what it prints."""
    with standard.streams():
        _run()


def _run() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m stiqueue.health",
        description="Ask a server whether it serves.",
        epilog="In the server's own environment, with its STIQUEUE_PORT and STIQUEUE_TLS_CERT, no option is needed.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="the server's address (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=os.environ.get("STIQUEUE_PORT", "1234"), help="its port (default: 1234)"
    )
    files = {"ca": "encrypt; the authority", "cert": "show this client certificate", "key": "its key"}
    for name, text in files.items():
        variable = "STIQUEUE_TLS_CA" if name == "ca" else f"STIQUEUE_TLS_CLIENT_{name.upper()}"
        parser.add_argument(f"--tls-{name}", default=os.environ.get(variable), help=f"{text} (PEM; ${variable})")
    arguments = parser.parse_args()
    tls = TLS(arguments.tls_ca, arguments.tls_cert, arguments.tls_key)
    try:
        used = _of_server(arguments.host, arguments.port, os.environ) if tls == TLS() else tls
        serving = is_serving(arguments.host, arguments.port, tls=used)
    except InvalidRequest as error:
        parser.error(str(error))
    except OSError:
        serving = False
    proxy = None if serving else proxy_for(arguments.host)
    way = "" if proxy is None else f", asked through the proxy {proxy}"
    with contextlib.suppress(OSError):
        print("SERVING" if serving else f"NOT SERVING{way}")
    sys.exit(0 if serving else 1)


if __name__ == "__main__":
    main()
