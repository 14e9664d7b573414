"""A whole cluster on this machine: three NATS servers, two gateways behind a balancer, and clients at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import TracebackType

from support.nats_servers import NatsCluster, NatsServer
from support.network import Network

from .checker import Expectation, Result
from .history import CLUSTER, SECOND
from .processes import ClientProcess, ServerProcess, wait_until
from .proxy import Proxy
from .recorder import read_history
from .run import Run

STREAM = "stiqueue-default"
SERVICE_SECONDS = 60.0
"""How long the service may take to be back on a busy machine, before the test gives up."""
PROGRESS = 50
"""So many further confirmed messages are service."""
ALIKE_SECONDS = 30.0
"""How long the servers may take until all have the same."""


class Site:
    """One run with everything that it needs. A context manager; ends it all when the test ends, however it ends."""

    def __init__(self, run: Run, network: Network | None = None, disks: list[Path] | None = None, sync: str = "always"):
        """Describe it: on this machine's loopback or in `network`, on `disks` or in the run's directory."""
        self.run = run
        self.cluster = NatsCluster(*(disks or [run.directory / "nats"] * 3), sync=sync)
        for number, node in enumerate(self.cluster.nodes):
            if network is not None:
                node.host, node.prefix = network.hosts[number], network.prefix(number)
        self.gateways: list[ServerProcess] = []
        self.gaps: dict[str, float] = {}
        """Seconds without a confirmed message, by fault."""
        self._faults: list[tuple[str, int]] = []
        self._balancer: Proxy | None = None

    def start(self, *options: str) -> Site:
        """Start the servers, the gateways and the balancer; `options` go to the gateways."""
        try:
            self.cluster.start()
            self.start_gateways(*options)
        except BaseException:
            self.close()
            raise
        return self

    def start_gateways(self, *options: str) -> None:
        """Start the gateways, each with another server first, and the balancer."""
        nodes = self.cluster.nodes
        for name, order in (("gateway-1", nodes), ("gateway-2", nodes[1:] + nodes[:1])):
            hosts = ",".join(f"{node.host}:{node.port}" for node in order)
            address = f"nats://{hosts}?monitor={','.join(str(node.monitor) for node in order)}"
            gateway = self.run.server("--engine", address, *options, start=False)
            gateway.name = name
            self.gateways.append(gateway)
        for gateway in self.gateways:
            gateway.start(ready=False)
        for gateway in self.gateways:
            gateway.wait_ready()
        self._balancer = Proxy(*(gateway.target for gateway in self.gateways), name="balancer").start()

    def load(self, producers: int = 4, consumers: int = 3, rate: float = 10.0) -> list[ClientProcess]:
        """Start clients behind the balancer, and wait until messages flow."""
        assert self._balancer is not None
        target = self._balancer.target
        words = ["--batch", 20, "--rate", rate, "--give-up", 120]
        for number in range(producers):
            self.run.client("produce", f"p{number}", *words, target=target)
        for number in range(consumers):
            self.run.client("consume", f"c{number}", "--prefetch", 20, target=target)
        self.wait_for_service("load")
        return self.run.clients

    # -- what is served -----------------------------------------------------------------------------------------------

    def times(self, op: str = "enq") -> list[int]:
        """Return when messages were confirmed (or delivered), in order."""
        return [event.t for event in read_history(self.run.directory) if event.op == op and event.outcome == "ok"]

    def wait_for_service(self, what: str, since: int | None = None) -> None:
        """Wait until messages are confirmed and delivered again."""
        since = time.monotonic_ns() if since is None else since

        def served() -> bool:
            return all(sum(t > since for t in self.times(op)) >= PROGRESS for op in ("enq", "deq"))

        wait_until(served, SERVICE_SECONDS, f"service: {what}", every=0.2)

    def fault(self, what: str, strike: Callable[[], object], heal: Callable[[], object] | None = None) -> None:
        """Do harm to servers under load, wait for service, undo it, and wait until all are well and serve."""
        kind = what.replace(" ", "-")  # one word in the history
        self.run.inject.begins(CLUSTER, kind)
        self._suffer(what, strike, heal, lambda: self.run.inject.took_effect(CLUSTER, kind))
        self.run.inject.healed(CLUSTER)

    def kill_gateways(self) -> None:
        """Kill each gateway under load, and start it again."""
        for gateway in self.gateways:

            def kill(gateway: ServerProcess = gateway) -> None:
                self.run.inject.kill(gateway)

            self._suffer(f"{gateway.name} killed", kill, lambda gateway=gateway: self.run.inject.restart(gateway))

    def _suffer(
        self,
        what: str,
        strike: Callable[[], object],
        heal: Callable[[], object] | None,
        struck: Callable[[], object] = lambda: None,
    ) -> None:
        begin = time.monotonic_ns()
        strike()
        struck()
        self.wait_for_service(what)
        if heal is not None:
            heal()
        self.cluster.wait_ready()
        self.wait_for_service(f"after {what}")
        self._faults.append((what, begin))
        print(f"{time.strftime('%H:%M:%S')} {what}, and healed", flush=True)

    def measure(self, end_of_load: int) -> None:
        """Find out and print how long no message was confirmed or delivered after each fault, while there was load."""
        ends = [*(begin for _, begin in self._faults[1:]), end_of_load]
        for op in ("enq", "deq"):
            times = self.times(op)
            for (what, begin), end in zip(self._faults, ends, strict=False):  # without a fault there is an end too many
                within = [t for t in times if begin - SECOND <= t <= end]
                gap = max((after - before for before, after in pairwise(within) if after > begin), default=0) / SECOND
                self.gaps[f"{what} {op}"] = gap
        for what, _ in self._faults:
            print(
                f"{what}: {self.gaps[f'{what} enq']:.2f} s without confirms, {self.gaps[f'{what} deq']:.2f} s without"
            )

    # -- harm ---------------------------------------------------------------------------------------------------------

    def leader(self) -> NatsServer:
        """Return the server that leads the queue's stream, once there is one."""
        found: list[NatsServer] = []

        def known() -> bool:
            try:
                found.append(self.cluster.leader_of(STREAM))
            except LookupError:
                return False
            return found[-1].is_up

        wait_until(known, SERVICE_SECONDS, "a leader", every=0.1)
        return found[-1]

    def follower(self) -> NatsServer:
        """Return a server that does not lead it."""
        leader = self.leader()
        return next(node for node in self.cluster.nodes if node is not leader)

    def start_dead(self) -> None:
        """Start the servers that are down."""
        for node in self.cluster.nodes:
            if not node.is_up:
                node.start(ready=False)

    def wait_alike(self, seconds: float = ALIKE_SECONDS) -> float:
        """Wait until all servers have the same of the queue; return how long it took, in seconds."""

        def alike() -> bool:
            states = self.cluster.state_of(STREAM)
            return len(states) == len(self.cluster.nodes) and len(set(states.values())) == 1

        return wait_until(alike, seconds, "servers that have the same", every=0.1)

    def finish(self, confirmed: int, **expected: bool) -> Result:
        """Stop the clients, drain, judge, and compare the servers."""
        end = time.monotonic_ns()
        self.run.stop_clients()
        self.run.drain(seconds=120)
        print(f"the servers have the same after {self.wait_alike():.1f} s")
        self.measure(end)
        return self.run.assert_good(Expectation(confirmed=confirmed, **expected))

    def __enter__(self) -> Site:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""
        self.close()

    def close(self) -> None:
        """End everything; the gateways first, which else would complain."""
        if self._balancer is not None:
            self._balancer.stop()
        for process in (*self.run.clients, *self.gateways):
            process.end()
        self.cluster.end()
