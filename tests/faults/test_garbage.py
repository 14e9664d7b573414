"""Clients that speak no gRPC, or say nothing: fault 37."""

from __future__ import annotations

import time

from .goodness import GoodClient, assert_undisturbed, descriptors, lines_per_second, usual_p99, wait_for_descriptors
from .noise import LOUD, SILENT, connect, wait_closed
from .processes import wait_until
from .run import Run

SECONDS = 10.0
LOUD_SECONDS = 3.0
"""1 s, and room for a machine that does other work."""
SILENT_SECONDS = 15.0
"""10 s, likewise."""
EACH = 200


def test_37_garbage_on_the_port(run: Run, certificate: list[str]) -> None:
    """200 connections each of HTTP/1.1, noise, TLS where none is, plain where TLS is, and of those that fall silent.

    The loud are closed within 1 s, the silent within 10 s. The log has at most 10 lines a second, a good client is
    served as fast as one of another server, and the descriptors are back.
    """
    plain, secure = run.server(), run.server(*certificate, start=False)
    secure.start(ready=False)
    wait_until(lambda: "messages in memory" in secure.log, SECONDS, "a server with TLS")
    servers = {"plain": plain, "TLS": secure}
    elsewhere = run.server()
    usual_p99(plain.target, 0.2)
    open_before = {name: descriptors(server.pid) for name, server in servers.items()}
    lines_before = {name: len(server.log.splitlines()) for name, server in servers.items()}
    began = time.monotonic()
    with GoodClient(elsewhere.target) as undisturbed, GoodClient(plain.target) as good:
        silent = [
            connection
            for name, kinds in SILENT.items()
            for data in kinds.values()
            for connection in connect(servers[name].port, data, EACH)
        ]
        for name, kinds in LOUD.items():
            for what, data in kinds.items():
                took = wait_closed(connect(servers[name].port, data, EACH), LOUD_SECONDS, f"{what} at {name}")
                print(f"{what} at {name}: closed after {took * 1000:.0f} ms")
        took = wait_closed(silent, began + SILENT_SECONDS - time.monotonic(), "silent ones")
    seconds = time.monotonic() - began
    print(f"the silent were closed after {seconds:.1f} s")
    assert_undisturbed(good, undisturbed)
    for name, server in servers.items():
        assert lines_per_second(server, lines_before[name], seconds) <= 10
        wait_for_descriptors(server, open_before[name])
