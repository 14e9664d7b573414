"""A server under load for a long time, whose clients are killed and stopped at random (fault 49)."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from .checker import Expectation, Result
from .goodness import BUSY_P99, GoodClient, descriptors, resident_bytes, threads
from .processes import ClientProcess, ServerProcess, wait_until
from .run import Run

MIB = 1 << 20
LOAD_SECONDS = 60.0
"""How long all clients may take to be at work."""
MEASURE_SECONDS = 5.0
"""How long the full load is measured of which a share is asked for."""
BACKLOG = 20_000
"""Most messages in the queue: producers that are faster than the consumers are refused then."""
SAMPLE_SECONDS = 1.0
MEMORY_SECONDS = 340.0
"""How long request ids are remembered at the most: until then, memory grows with what is enqueued."""
REMEMBERED_BYTES = 250
"""What a remembered id takes at the most."""
FLAT = 1.25
"""By which factor memory may grow beside, over the whole run."""
GROWTH_BYTES_PER_600_S = MIB
SLOWER = 1.3
"""By which factor the p99 of the last third may exceed that of the first one, unless it is small anyway."""
LONG_SECONDS = 300.0
"""A run of at least so long has thirds that can be compared."""


class Sample(NamedTuple):
    """What a server uses at one time."""

    seconds: float
    """Since the beginning."""
    bytes: int
    descriptors: int
    threads: int
    calls: int
    """How many calls a good client has made by then."""


class Crew:
    """Clients of one role, any of which can be struck; whoever is killed is replaced."""

    def __init__(self, hire: Callable[[int], ClientProcess], size: int) -> None:
        """Start `size` of them."""
        self._numbers = count()
        self._hire = hire
        self.members = [hire(next(self._numbers)) for _ in range(size)]

    def kill_one(self, run: Run) -> None:
        """SIGKILL one, and hire another."""
        victim = run.random.choice(self.members)
        run.inject.kill(victim)
        self.members.remove(victim)
        self.members.append(self._hire(next(self._numbers)))

    def stop_one(self, run: Run) -> None:
        """SIGSTOP one for a while."""
        victim = run.random.choice(self.members)
        run.inject.stop(victim)
        time.sleep(run.random.uniform(0.5, 3.0))
        run.inject.resume(victim)


def endure(
    run: Run,
    seconds: float,
    producers: int,
    consumers: int,
    share: float = 1.0,
    pause: tuple[float, float] = (2.0, 8.0),
) -> Result:
    """Let clients work for so long, kill and stop them, watch what the server uses; drain; judge.

    Args:
        run: where all is started and recorded.
        seconds: how long.
        producers: processes that enqueue.
        consumers: processes that dequeue.
        share: 1 for all that the producers can do, less for a share of that.
        pause: the least and the most seconds between one fault and the next.

    Raises:
        AssertionError: the server's memory, descriptors, threads or answers have grown.
    """
    server = run.server("--data", "stiqueue.db", "--max-messages", str(BACKLOG))
    takers = Crew(lambda n: run.client("consume", f"c{n}", "--prefetch", 50), consumers)
    rate = 0.0
    if share < 1.0:
        rate = share * _full_rate(run, producers)
        print(f"{producers} producers enqueue {rate:.0f} messages a second each")
    senders = Crew(lambda n: run.client("produce", f"p{n}", "--rate", rate), producers)
    for client in takers.members + senders.members:
        client.wait_for("ready", LOAD_SECONDS)
    before = run.counts().acked
    wait_until(lambda: run.counts().acked >= before + 500, LOAD_SECONDS, "load")
    kinds = (takers.kill_one, takers.stop_one, senders.kill_one)
    samples: list[Sample] = []
    begin = time.monotonic()
    strikes_at = begin + run.random.uniform(*pause)
    with GoodClient(server.target) as good:
        while (now := time.monotonic()) < begin + seconds:
            samples.append(_sample(server, now - begin, len(good.seconds)))
            if now >= strikes_at:
                run.random.choice(kinds)(run)
                strikes_at = time.monotonic() + run.random.uniform(*pause)
            time.sleep(SAMPLE_SECONDS)
    rate = (run.counts().acked - before) / (time.monotonic() - begin)
    run.stop_clients(senders.members)
    run.stop_clients(takers.members)
    run.drain(seconds=120)
    assert "Traceback" not in server.log
    result = run.verdict(Expectation(confirmed=int(seconds * 20)))
    print(f"{rate:.0f} messages a second in and out")
    assert good.failures == []
    _assert_steady(samples, good.seconds, result.confirmed)
    return result


def _full_rate(run: Run, producers: int) -> float:
    """Return how many messages a second each of so many producers can send."""
    senders = [run.client("produce", f"trial{n}") for n in range(producers)]
    for sender in senders:
        sender.wait_for("ready", LOAD_SECONDS)
    before, begin = run.counts().enqueued, time.monotonic()
    time.sleep(MEASURE_SECONDS)
    found = (run.counts().enqueued - before) / (time.monotonic() - begin)
    run.stop_clients(senders)
    return found / producers


def _sample(server: ServerProcess, seconds: float, calls: int) -> Sample:
    pid = server.pid
    return Sample(seconds, resident_bytes(pid), descriptors(pid), threads(pid), calls)


def _assert_steady(samples: list[Sample], calls: list[float], messages: int) -> None:
    """Check that a server used as much at the end as it did after the beginning, and answered as fast."""
    third = max(1, len(samples) // 3)
    first, last = samples[:third], samples[-third:]
    for name in ("descriptors", "threads"):
        most = [max(getattr(each, name) for each in part) for part in (first, last)]
        print(f"{name}: at most {most[0]} in the first third, {most[1]} in the last")
        assert most[1] <= most[0] + 3, name
    sizes = [sorted(each.bytes for each in part)[third // 2] for part in (first, last)]
    print(f"memory: {sizes[0] / MIB:.1f} MiB in the first third, {sizes[1] / MIB:.1f} in the last")
    assert sizes[1] <= FLAT * sizes[0] + REMEMBERED_BYTES * messages
    if samples[-1].seconds >= LONG_SECONDS:  # in a shorter time, one start of a client among the calls decides
        early, late = (_p99(calls[part[0].calls : part[-1].calls]) for part in (first, last))
        print(f"a good client's p99: {early * 1000:.1f} ms in the first third, {late * 1000:.1f} ms in the last")
        assert late <= max(SLOWER * early, BUSY_P99)
    settled = [each for each in samples if each.seconds > MEMORY_SECONDS]
    if settled and settled[-1].seconds - settled[0].seconds >= MEMORY_SECONDS:
        slope = _slope(settled)
        print(f"memory grows by {slope * 600 / MIB:.2f} MiB in 10 minutes")
        assert slope * 600 <= GROWTH_BYTES_PER_600_S


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)]


def _slope(samples: list[Sample]) -> float:
    """Return by how many bytes a second memory grows, by the line of least squares."""
    x = sum(each.seconds for each in samples) / len(samples)
    y = sum(each.bytes for each in samples) / len(samples)
    spread = sum((each.seconds - x) ** 2 for each in samples)
    return sum((each.seconds - x) * (each.bytes - y) for each in samples) / spread
