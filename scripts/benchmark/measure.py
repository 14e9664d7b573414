"""Runs the benchmark: servers and drivers for the workloads, rounds in which the systems take turns, and results."""

from __future__ import annotations

import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from benchmark.clients.base import Unsupported
from benchmark.hands import Failed, Hand
from benchmark.peers import SYSTEMS, NotAvailable, Server


@dataclass(frozen=True)
class Scale:
    """How long a run takes."""

    name: str
    rounds: int
    """Rounds that count; a first one warms up and calibrates the number of messages."""
    seconds: float
    """How long one system's turn takes, about."""
    samples: int
    """Single calls for a median or a percentile."""
    crowds: tuple[int, ...]
    """Idle consumers."""
    arrivals: int
    """Messages to as many consumers."""
    paced_seconds: float
    backlogs: tuple[int, ...]
    stored: int
    """Messages for memory per message."""


SCALES = {
    scale.name: scale
    for scale in (
        Scale("smoke", 1, 0.02, 20, (0, 10), 10, 0.2, (1_000,), 2_000),
        Scale("quick", 3, 0.1, 60, (0, 100, 1_000), 1_000, 1.0, (100_000,), 100_000),
        Scale("full", 7, 0.8, 300, (0, 100, 1_000, 9_500), 5_000, 5.0, (100_000, 1_000_000, 10_000_000), 1_000_000),
    )
}


@dataclass
class Results:
    """Every figure, by metric, system and round."""

    rounds: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    absent: dict[str, str] = field(default_factory=dict)
    """Systems that could not be measured, and why."""
    failures: list[str] = field(default_factory=list)

    def add(self, metric: str, system: str, value: float) -> None:
        """Record one round's figure."""
        self.rounds[metric][system].append(value)

    def median(self, metric: str, system: str) -> float | None:
        """Return the median over the rounds, or None when it was not measured."""
        values = self.rounds.get(metric, {}).get(system)
        return statistics.median(values) if values else None

    def ratio(self, metric: str, system: str, base_metric: str, base: str) -> tuple[float, float, float] | None:
        """Return (median, least, greatest) of the rounds' ratios of one figure to another's of the same round."""
        above, below = self.rounds.get(metric, {}).get(system), self.rounds.get(base_metric, {}).get(base)
        if not above or not below:
            return None
        if len(above) == len(below):
            ratios = [one / other for one, other in zip(above, below, strict=True) if other]
        else:
            ratios = [statistics.median(above) / statistics.median(below)]
        return statistics.median(ratios), min(ratios), max(ratios)


class Stage:
    """Starts the processes that workloads need and stops them all at the end. A context manager."""

    def __init__(self, scale: Scale, systems: Iterable[str]) -> None:
        """Skip systems that cannot run here."""
        self.scale = scale
        self.results = Results()
        self.systems: list[str] = []
        self._servers: dict[str, Server] = {}
        self._hands: dict[tuple[str, str], Hand] = {}
        for name in systems:
            try:
                SYSTEMS[name].check()
                self.systems.append(name)
            except NotAvailable as error:
                self.results.absent[name] = str(error)

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        for hand in self._hands.values():
            hand.close()
        for server in self._servers.values():
            server.stop()

    def server(self, system: str) -> Server:
        """Return the server of `system`, started on first use."""
        if system not in self._servers:
            self._servers[system] = Server(SYSTEMS[system].command)
        return self._servers[system]

    def hand(self, system: str, which: str = "a") -> Hand:
        """Return a driver of `system`, started on first use; producers are "a", consumers at the same time are "b"."""
        if (system, which) not in self._hands:
            self._hands[system, which] = self.new_hand(system, self.server(system))
        return self._hands[system, which]

    def new_hand(self, system: str, server: Server, kind: str | None = None) -> Hand:
        """Return a driver that the caller closes."""
        peer = SYSTEMS[system]
        return Hand(kind or peer.client, server.port, peer.python, peer.variables)

    def interleave(self, metric: str, turn: Callable[[str, bool], None], systems: Iterable[str]) -> None:
        """Let each system have its `turn(system, warm_up)` in each round; drop those that cannot or fail."""
        taking_part = [name for name in systems if name in self.systems]
        for number in range(self.scale.rounds + 1):
            for system in list(taking_part):
                try:
                    turn(system, number == 0)
                except Unsupported:
                    taking_part.remove(system)
                except (Failed, NotAvailable) as error:
                    self.failed(metric, system, error)
                    taking_part.remove(system)
        shown = time.strftime("%H:%M:%S")
        print(f"{shown} {metric}: {', '.join(taking_part) or 'nobody can'}", file=sys.stderr, flush=True)

    def failed(self, metric: str, system: str, error: Exception) -> None:
        """Note a failure and forget the drivers, which may be in any state."""
        self.results.failures.append(f"{metric}: {system}: {error}")
        print(f"FAILED {metric}: {system}: {error}", file=sys.stderr, flush=True)
        for key in [key for key in self._hands if key[0] == system]:
            self._hands.pop(key).close(patience=0.5)
