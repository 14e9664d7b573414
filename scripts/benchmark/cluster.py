"""Three NATS servers that form a cluster, and the addresses for the benchmark's clients.

``python -m benchmark.cluster PORT DIRECTORY PROGRAM [gateway]``: with ``gateway``, StiQueue's listens on PORT, else the
first of the servers. The servers are ended with this process.
"""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

SERVERS = 3
START_SECONDS = 15.0
CONFIG = """
server_name: n{number}
listen: "127.0.0.1:{client}"
http: "127.0.0.1:{monitor}"
max_payload: 8MB
jetstream {{ store_dir: "{directory}", sync_interval: always, max_file_store: 20GB }}
cluster {{ name: bench, listen: "127.0.0.1:{route}", routes: [{routes}] }}
"""


def main() -> None:
    """Start everything, and end it when told to."""
    port, directory, program = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
    gateway = "gateway" in sys.argv[4:]
    free = _free_ports(3 * SERVERS)
    clients, monitors, routes = free[:SERVERS], free[SERVERS : 2 * SERVERS], free[2 * SERVERS :]
    if not gateway:
        clients[0] = port
    processes: list[subprocess.Popen[bytes]] = []
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        for number, (client, monitor, route) in enumerate(zip(clients, monitors, routes, strict=True), 1):
            config = directory / f"n{number}.conf"
            config.write_text(
                CONFIG.format(
                    number=number,
                    client=client,
                    monitor=monitor,
                    route=route,
                    directory=directory / f"n{number}",
                    routes=", ".join(f'"nats://127.0.0.1:{each}"' for each in routes),
                )
            )
            processes.append(subprocess.Popen([program, "-c", str(config)]))
        _wait_for_a_leader(monitors)
        if gateway:
            hosts = ",".join(f"127.0.0.1:{client}" for client in clients)
            address = f"nats://{hosts}?monitor={','.join(map(str, monitors))}"
            command = [sys.executable, "-m", "stiqueue.sqserver", "--port", str(port), "--engine", address]
            processes.append(subprocess.Popen(command))
        processes[-1].wait()
    finally:
        for process in reversed(processes):
            process.terminate()
            process.wait()


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for_a_leader(monitors: list[int]) -> None:
    give_up = time.monotonic() + START_SECONDS
    while not all(_is_ready(monitor) for monitor in monitors):
        if time.monotonic() > give_up:
            raise TimeoutError("the servers have no leader")
        time.sleep(0.1)


def _is_ready(monitor: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{monitor}/jsz", timeout=1) as answer:
            meta = json.load(answer).get("meta_cluster") or {}
        return bool(meta.get("leader")) and meta.get("cluster_size") == SERVERS
    except OSError:
        return False


if __name__ == "__main__":
    main()
