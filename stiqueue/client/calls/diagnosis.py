"""Why a server cannot be reached, where gRPC says only that a connection was closed or refused."""

from __future__ import annotations

import ipaddress
import threading
import time

from stiqueue.client.calls.tls import speaks_tls
from stiqueue.errors import Unauthenticated

PROBE_SECONDS = 1.0
"""How long a probe may take."""
PROBE_INTERVAL = 5.0
"""Seconds between two probes of a server that stays away, and how long the result of one counts."""

_REFUSED = "Connection refused"
_HUNG_UP = ("Socket closed", "Connection reset")


def hint(details: str) -> str:
    """Return what to do about a failure with these `details` of gRPC; empty where nothing is known."""
    return "; is a server running there? `stiqueue serve` starts one" if _REFUSED in details else ""


class Diagnosis:
    """Finds out whether a server wants TLS of a client that has none. Thread-safe.

    A server with TLS hangs up on a client without, which looks like a server that is stopping: the client would try
    again until its timeout. So the server is probed, in a thread, when it has hung up for the first time.
    """

    def __init__(self, host: str, port: int) -> None:
        """Probe the server at `host` and `port`; nothing is opened before the first failure."""
        self._host = host
        self._port = port
        self._lock = threading.Lock()
        """Guards the two below."""
        self._next_probe = 0.0
        self._wants_tls_until = 0.0
        """Until when, in monotonic seconds, the result of a probe counts."""

    def mismatch(self, details: str) -> Unauthenticated | None:
        """Return the error of a client that lacks TLS, or None as far as is known by now.

        Args:
            details: what gRPC says about the failed call; a reason to probe, or not.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._wants_tls_until:
                return Unauthenticated(
                    f'the server at {self._host} seems to speak TLS; write tls="authority.pem", or tls=True where its '
                    "certificate is a public one"
                )
            if now < self._next_probe or not self._is_suspicious(details):
                return None
            self._next_probe = now + PROBE_INTERVAL
        threading.Thread(target=self._probe, name="stiqueue-probe", daemon=True).start()
        return None

    def _is_suspicious(self, details: str) -> bool:
        """Return whether TLS may be the reason. For a name gRPC says how its last address failed, not how each did."""
        return any(text in details for text in _HUNG_UP) or (_REFUSED in details and not _is_address(self._host))

    def _probe(self) -> None:
        if speaks_tls(self._host, self._port, PROBE_SECONDS):
            with self._lock:
                self._wants_tls_until = time.monotonic() + PROBE_INTERVAL


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
