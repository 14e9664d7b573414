"""A console in a process of its own beside a server: ``python -m stiqueue.web.beside``, for `stiqueue serve`.

A process, so that browsers never hold up messages. It reads its options as a line of JSON, says on a line whether it
listens, and ends when its stdin does: with the server, however that ends.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
from typing import Any

from stiqueue.client.calls.tls import TLS
from stiqueue.errors import InvalidRequest
from stiqueue.web.options import WebOptions
from stiqueue.web.serving import WebServer
from stiqueue.wire.handshake import read_certificate


def main() -> None:
    """Serve until stdin ends."""
    # Ctrl-C goes to both processes, and the server may take its grace; it says when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    given: dict[str, Any] = json.loads(sys.stdin.readline())
    logging.getLogger("stiqueue.web").addHandler(logging.StreamHandler(sys.stderr))
    cert, key, shows, has_tokens = (given.pop(name) for name in ("cert", "key", "shows", "has_tokens"))
    try:
        tls = None if cert is None else _trust(cert, key, shows)
        options = WebOptions(**given, tls=tls)
        if not (has_tokens or options.is_local or options.web_open):
            raise InvalidRequest(
                f"web_host: everyone who reaches {options.web_host} could read and drop messages; give --tokens or "
                "--web-open",
                "BAD_OPTION",
            )
        server = WebServer(options)
        port = server.bind()
    except (InvalidRequest, OSError) as error:
        print(f"error {error}", flush=True)
        return
    print(f"listens {options.url(port)}", flush=True)

    def wait() -> None:
        sys.stdin.read()
        server.stop()

    threading.Thread(target=wait, name="stiqueue-web-stdin", daemon=True).start()
    server.run()


def _trust(cert: str, key: str, shows: bool) -> TLS:
    """Trust the server's own certificate, whatever its name, and show it where the server asks for one."""
    return TLS(cert, cert if shows else None, key if shows else None, server_name=_name_in(cert, key))


def _name_in(cert: str, key: str) -> str | None:
    """Return the first name in a certificate.

    Raises:
        InvalidRequest: the files cannot be used.
    """
    names = [value for _, value in read_certificate(cert, key).get("subjectAltName", ())]
    return names[0].replace("*", "any") if names else None


if __name__ == "__main__":
    main()
