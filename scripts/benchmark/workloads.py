"""The workloads, the same for every system: rates in and out, both at once, latency."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmark import beside, scaling
from benchmark.measure import Stage
from benchmark.peers import BARE, SYSTEMS

SMALL, MIDDLE, LARGE = 100, 10 << 10, 1 << 20
MOST_MESSAGES = 400_000
LATENCY_PER_SECOND = 200
SETTLING_SECONDS = 0.2
"""How long consumers must be waiting before the first message."""


@dataclass(frozen=True)
class Cycle:
    """Enqueues messages, then takes the same messages out; measures both rates."""

    name: str
    size: int
    enq: Callable[[int], dict[str, object]]
    deq: Callable[[int], dict[str, object]]
    least: int
    """The number of messages that the calibration starts with."""

    def run(self, stage: Stage) -> None:
        """Measure `NAME.in` and `NAME.out` in messages a second."""
        numbers: dict[str, int] = {}

        def once(system: str, number: int) -> tuple[float, float | None]:
            hand = stage.hand(system)
            into = hand.do(**self.enq(number)).seconds  # type: ignore[arg-type]
            if system in BARE:
                return into, None
            return into, hand.do(**self.deq(number)).seconds  # type: ignore[arg-type]

        def turn(system: str, warm_up: bool) -> None:
            if warm_up:
                numbers[system] = self._fitting(lambda number: once(system, number), stage.scale.seconds)
                return
            into, out = once(system, numbers[system])
            stage.results.add(f"{self.name}.in", system, numbers[system] / into)
            if out:
                stage.results.add(f"{self.name}.out", system, numbers[system] / out)

        stage.interleave(self.name, turn, SYSTEMS)

    def _fitting(self, once: Callable[[int], tuple[float, float | None]], seconds: float) -> int:
        """Return how many messages take about `seconds` each way."""
        number = self.least
        while True:
            slowest = max(took or 0.0 for took in once(number))
            if slowest > seconds / 3 or number >= MOST_MESSAGES:
                return max(self.least, min(MOST_MESSAGES, int(number * seconds / slowest / self.least) * self.least))
            number = min(MOST_MESSAGES, max(number * 2, int(number * seconds / slowest / self.least / 2) * self.least))


def one_by_one(name: str, size: int, least: int) -> Cycle:
    """One message at a time, in and out."""
    return Cycle(
        name,
        size,
        lambda number: {"job": "enq_each", "number": number, "size": size},
        lambda number: {"job": "deq_each", "number": number},
        least,
    )


def batches(name: str, size: int, batch: int, prefetch: int) -> Cycle:
    """Batches in; up to `prefetch` at a time out."""
    return Cycle(
        name,
        size,
        lambda number: {"job": "enq_batches", "number": number, "size": size, "batch": batch},
        lambda number: {"job": "deq_batches", "number": number, "prefetch": prefetch},
        batch,
    )


def keys(number_of: int, batch: int, prefetch: int) -> Cycle:
    """Batches in, each with one of so many keys; up to `prefetch` at a time out, one of each key."""
    return Cycle(
        f"keys-{number_of}",
        SMALL,
        lambda number: {"job": "enq_keys", "number": number, "size": SMALL, "batch": batch, "keys": number_of},
        lambda number: {"job": "deq_batches", "number": number, "prefetch": prefetch},
        number_of * batch,
    )


def threads(number_of: int) -> Cycle:
    """One message at a time from many threads that share a client."""
    return Cycle(
        f"threads-{number_of}",
        SMALL,
        lambda number: {"job": "enq_threads", "number": number, "size": SMALL, "threads": number_of},
        lambda number: {"job": "deq_threads", "number": number, "threads": number_of},
        number_of * 24,  # starting the threads is not to be what is measured
    )


def ahead() -> Cycle:
    """One message at a time, without waiting for each: `enq_soon` in, `deq` with a prefetch of 100 out."""
    return Cycle(
        "ahead",
        SMALL,
        lambda number: {"job": "enq_soon", "number": number, "size": SMALL},
        lambda number: {"job": "deq_ahead", "number": number},
        1000,
    )


def both_at_once(stage: Stage) -> None:
    """Batches of 1,000 in while another process takes them out, in messages a second from start to end."""
    numbers: dict[str, int] = {}

    def once(system: str, number: int) -> float:
        producer, consumer = stage.hand(system), stage.hand(system, "b")
        began = time.perf_counter()
        consumer.begin("deq_batches", number=number, prefetch=2000)
        producer.begin("enq_batches", number=number, size=SMALL, batch=1000)
        producer.end()
        consumer.end()
        return time.perf_counter() - began

    def turn(system: str, warm_up: bool) -> None:
        if warm_up:
            stage.hand(system).do("enq_batches", number=1, size=SMALL, batch=1)  # ask whether it can at all
            stage.hand(system).do("deq_batches", number=1, prefetch=1)
            once(system, 1000)
            took = once(system, 5000)
            numbers[system] = max(1, min(300, round(5 * stage.scale.seconds / took))) * 1000
        else:
            stage.results.add("both", system, numbers[system] / once(system, numbers[system]))

    stage.interleave("both", turn, [name for name in SYSTEMS if name not in BARE])


def latency(stage: Stage) -> None:
    """The latency from just before `enq` to a waiting consumer in another process; a bare call is the floor."""

    def turn(system: str, warm_up: bool) -> None:
        number = 20 if warm_up else stage.scale.samples
        _paced(stage, system, "latency", number, LATENCY_PER_SECOND, 1, 1, None if warm_up else 1)

    stage.interleave("latency", turn, SYSTEMS)


def calls(stage: Stage) -> None:
    """One call at a time, answered by another process; beside it two bare calls."""

    def turn(system: str, warm_up: bool) -> None:
        number = 20 if warm_up else stage.scale.samples
        if system not in BARE:
            stage.hand(system, "b").begin("answer_each", number=number)
        took = stage.hand(system).do("call_each", number=number, size=SMALL).result
        if system not in BARE:
            stage.hand(system, "b").end()
        if not warm_up:
            for share in ("p50", "p99"):
                stage.results.add(f"call.{share}", system, took[share])

    stage.interleave("call", turn, ["echo", "stiqueue", "stiqueue-durable"])


def paced(stage: Stage) -> None:
    """50 consumers and 400 or 800 messages a second from 4 threads: how old messages are when they arrive."""
    for per_second in (400, 800):
        name = f"paced-{per_second}"
        number = int(per_second * stage.scale.paced_seconds)

        def turn(system: str, warm_up: bool, name: str = name, number: int = number, rate: int = per_second) -> None:
            _paced(stage, system, name, 40 if warm_up else number, rate, 50, 4, None if warm_up else 1)

        stage.interleave(name, turn, ["echo", "stiqueue", "stiqueue-durable", "redis-streams", "nats-memory"])


def _paced(
    stage: Stage,
    system: str,
    name: str,
    number: int,
    per_second: int,
    consumers: int,
    producers: int,
    counts: int | None,
) -> None:
    sending = {"number": number, "size": SMALL, "per_second": per_second, "threads": producers}
    if system in BARE:
        call = stage.hand(system).do("send", stops=0, **sending).result
        arrival = None
    else:
        stage.hand(system, "b").begin("receive", consumers=consumers)
        time.sleep(SETTLING_SECONDS)
        call = stage.hand(system).do("send", stops=consumers, **sending).result
        arrival = stage.hand(system, "b").end().result
    if counts is None:
        return
    for share in ("p50", "p99"):
        stage.results.add(f"{name}.enq-{share}", system, call[share])
        if arrival:
            stage.results.add(f"{name}.deq-{share}", system, arrival[share])


WORKLOADS: dict[str, Callable[[Stage], None]] = {
    cycle.name: cycle.run
    for cycle in (
        one_by_one("single", SMALL, 20),
        ahead(),
        threads(64),
        batches("batch-10", SMALL, 10, 10),
        batches("batch-100", SMALL, 100, 100),
        batches("batch-1000", SMALL, 1000, 1000),
        batches("batch-2000", SMALL, 1000, 2000),
        keys(1000, 100, 1000),
        one_by_one("single-10KiB", MIDDLE, 20),
        batches("batch-100-10KiB", MIDDLE, 100, 100),
        one_by_one("single-1MiB", LARGE, 2),
        batches("batch-10-1MiB", LARGE, 10, 10),
    )
} | {
    "both": both_at_once,
    "latency": latency,
    "call": calls,
    "paced": paced,
    "beside-large": beside.beside_large,
    "memory": scaling.memory,
    "crowd": scaling.crowd,
    "backlog": scaling.backlog,
}
"""Each by the name that ``--only`` takes."""

QUICK = [
    name
    for name in WORKLOADS
    if name not in ("batch-10", "batch-100", "single-10KiB", "single-1MiB", "batch-10-1MiB", "beside-large")
]
