"""StiQueue's targets, each a ratio of two figures of the same run."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.measure import Results


@dataclass(frozen=True)
class Target:
    """A bound on the ratio of `metric` of `system` to `base_metric` of `base`: at least (or at most) `bound`.

    None: the ratio is reported and has no bound.
    """

    text: str
    metric: str
    system: str
    base_metric: str
    base: str
    bound: float | None
    at_most: bool = False


@dataclass(frozen=True)
class Verdict:
    """The result of a target: the ratio's median over the rounds, and its range."""

    target: Target
    ratio: float
    low: float
    high: float

    @property
    def met(self) -> bool:
        """Whether the median is within the bound."""
        bound = self.target.bound
        return bound is None or (self.ratio <= bound if self.target.at_most else self.ratio >= bound)


MEMORY, ASYNC, POLLS, DURABLE = "stiqueue", "stiqueue-async", "stiqueue-polls", "stiqueue-durable"
CLUSTER, RAW, RAW_QUEUE = "stiqueue-cluster", "nats-cluster", "nats-cluster-queue"
STREAMS, HIREDIS, AOF = "redis-streams", "redis-streams-hiredis", "redis-streams-aof"
SYNCED = "nats-file-sync"
"""The JetStream configuration with the durability of a synced data file."""

TARGETS = [
    Target("memory, enq one by one / bare call", "single.in", MEMORY, "single.in", "echo", 2.5),
    Target("memory, deq + ack one by one / bare call", "single.out", MEMORY, "single.in", "echo", 2.2),
    Target("durable, enq one by one / bare call", "single.in", DURABLE, "single.in", "echo", 1.1),
    Target("durable, deq + ack one by one / bare call", "single.out", DURABLE, "single.in", "echo", 1.6),
    Target("no EventEngine in the client, enq one by one / bare call", "single.in", POLLS, "single.in", "echo", None),
    Target("no EventEngine in the client, deq + ack / bare call", "single.out", POLLS, "single.in", "echo", None),
    Target("memory, enq one by one / Redis Streams", "single.in", MEMORY, "single.in", STREAMS, 0.4),
    Target("durable, enq one by one / Redis Streams, AOF always", "single.in", DURABLE, "single.in", AOF, 0.6),
    Target("memory, deq + ack one by one / stiqueue 1.3.2", "single.out", MEMORY, "single.out", "original", 2),
    Target("memory, 64 threads enq / bare call", "threads-64.in", MEMORY, "threads-64.in", "echo", 8),
    Target("memory, enq_soon / enq one by one", "ahead.in", MEMORY, "single.in", MEMORY, 15),
    Target("durable, enq_soon / enq one by one", "ahead.in", DURABLE, "single.in", DURABLE, 20),
    Target("memory, deq / consume, both with prefetch 100", "ahead.out", MEMORY, "batch-100.out", MEMORY, 0.8),
    Target("asyncio, enq one by one / threads", "single.in", ASYNC, "single.in", MEMORY, 0.90),
    Target("asyncio, enq_soon / threads", "ahead.in", ASYNC, "ahead.in", MEMORY, 0.90),
    Target("asyncio, deq with prefetch 100 / threads", "ahead.out", ASYNC, "ahead.out", MEMORY, 0.90),
    Target("asyncio, deq + ack one by one / threads", "single.out", ASYNC, "single.out", MEMORY, 0.90),
    Target("enq to waiting deq, p50 / bare call", "latency.deq-p50", MEMORY, "latency.enq-p50", "echo", 0.8, True),
    Target("enq to waiting deq, p99 / bare call", "latency.deq-p99", MEMORY, "latency.enq-p99", "echo", 1.2, True),
    Target("memory, batches of 1,000 in / Redis Streams", "batch-1000.in", MEMORY, "batch-1000.in", STREAMS, 8),
    Target("memory, prefetch 2,000 out / Redis Streams 1,000", "batch-2000.out", MEMORY, "batch-1000.out", STREAMS, 4),
    Target("memory, both at once / Redis Streams", "both", MEMORY, "both", STREAMS, 3),
    Target("durable, batches of 1,000 in / Redis Streams", "batch-1000.in", DURABLE, "batch-1000.in", STREAMS, 3),
    Target("durable, prefetch 2,000 out / Redis Streams", "batch-2000.out", DURABLE, "batch-1000.out", STREAMS, 3),
    Target("memory, batches of 1,000 in / Redis, hiredis", "batch-1000.in", MEMORY, "batch-1000.in", HIREDIS, 5.5),
    Target("memory, prefetch 2,000 out / Redis, hiredis", "batch-2000.out", MEMORY, "batch-1000.out", HIREDIS, 1.5),
    Target("durable, batches of 1,000 in / Redis, hiredis", "batch-1000.in", DURABLE, "batch-1000.in", HIREDIS, 2.8),
    Target("durable, prefetch 2,000 out / Redis, hiredis", "batch-2000.out", DURABLE, "batch-1000.out", HIREDIS, 1.1),
    Target(
        "memory, 100 bodies of 10 KiB in / Redis, hiredis",
        "batch-100-10KiB.in",
        MEMORY,
        "batch-100-10KiB.in",
        HIREDIS,
        1,
    ),
    Target(
        "memory, 100 bodies of 10 KiB out / Redis, hiredis",
        "batch-100-10KiB.out",
        MEMORY,
        "batch-100-10KiB.out",
        HIREDIS,
        0.6,
    ),
    Target("durable, batches of 1,000 in / JetStream file", "batch-1000.in", DURABLE, "batch-1000.in", "nats-file", 20),
    Target(
        "durable, prefetch 2,000 out / JetStream file", "batch-2000.out", DURABLE, "batch-1000.out", "nats-file", 15
    ),
    Target(
        "memory, batches of 1,000 in / JetStream memory", "batch-1000.in", MEMORY, "batch-1000.in", "nats-memory", 0
    ),
    Target(
        "memory, prefetch 2,000 out / JetStream memory", "batch-2000.out", MEMORY, "batch-1000.out", "nats-memory", 0
    ),
    Target(
        "durable, batches of 1,000 in / JetStream file, synced", "batch-1000.in", DURABLE, "batch-1000.in", SYNCED, 0
    ),
    Target(
        "durable, prefetch 2,000 out / JetStream file, synced", "batch-2000.out", DURABLE, "batch-1000.out", SYNCED, 0
    ),
    Target("cluster, batches of 1,000 in / nats-py", "batch-1000.in", CLUSTER, "batch-1000.in", RAW, 0.8),
    Target("cluster, prefetch 1,000 out / nats-py", "batch-1000.out", CLUSTER, "batch-1000.out", RAW, 0.8),
    Target("cluster, prefetch 2,000 out / nats-py", "batch-2000.out", CLUSTER, "batch-2000.out", RAW, 0.8),
    Target("cluster, both at once / nats-py", "both", CLUSTER, "both", RAW, 0.8),
    Target(
        "cluster, batches of 1,000 in / nats-py work queue", "batch-1000.in", CLUSTER, "batch-1000.in", RAW_QUEUE, 0.8
    ),
    Target(
        "cluster, prefetch 1,000 out / nats-py work queue", "batch-1000.out", CLUSTER, "batch-1000.out", RAW_QUEUE, 0.8
    ),
    Target("cluster, both at once / nats-py work queue", "both", CLUSTER, "both", RAW_QUEUE, 0.8),
    Target("cluster, enq one by one / nats-py", "single.in", CLUSTER, "single.in", RAW, 0),
    Target("cluster, deq + ack one by one / nats-py", "single.out", CLUSTER, "single.out", RAW, 0),
    Target("cluster, enq to waiting deq, p50 / nats-py", "latency.deq-p50", CLUSTER, "latency.deq-p50", RAW, 0),
    Target("call and answer, p50 / two bare calls", "call.p50", MEMORY, "call.p50", "echo", None),
    Target("durable, call and answer, p50 / two bare calls", "call.p50", DURABLE, "call.p50", "echo", None),
    Target("bare call, asyncio / blocking", "single.in", "echo-async", "single.in", "echo", 0),
    Target("asyncio, enq one by one / bare call, asyncio", "single.in", ASYNC, "single.in", "echo-async", 0.90),
    Target("asyncio, batches of 1,000 in / threads", "batch-1000.in", ASYNC, "batch-1000.in", MEMORY, 0.90),
    Target("asyncio, prefetch 2,000 out / threads", "batch-2000.out", ASYNC, "batch-2000.out", MEMORY, 0.90),
    Target("durable, 64 threads enq / one thread", "threads-64.in", DURABLE, "single.in", DURABLE, 5),
    Target("50 consumers, 400/s: p99 / p50", "paced-400.deq-p99", MEMORY, "paced-400.deq-p50", MEMORY, 5, True),
    Target("prefetch 2,000 out / stiqueue 1.3.2", "batch-2000.out", MEMORY, "single.out", "original", 20),
    *(
        Target(
            f"{call} beside {crowd:,} idle consumers / none",
            f"crowd.{call}-{crowd}",
            system,
            f"crowd.{call}-0",
            system,
            1.3,
            True,
        )
        for system in (MEMORY, DURABLE)
        for crowd in (1_000, 9_500)
        for call in ("enq", "cnt", "peek")
    ),
    *(
        Target(
            f"durable, {call} with {count:,} waiting / none",
            f"backlog-{count}.{call}-full",
            DURABLE,
            f"backlog-{count}.{call}-empty",
            DURABLE,
            1.3,
            True,
        )
        for count in (100_000, 10_000_000)
        for call in ("enq", "deq")
    ),
    *(
        Target(
            f"{name}, {call} beside bodies of 4 MiB / alone, {share}",
            f"beside-large.{call}-beside-{share}",
            system,
            f"beside-large.{call}-alone-{share}",
            system,
            3,
            True,
        )
        for name, system in (("memory", MEMORY), ("durable", DURABLE))
        for call in ("enq", "deq")
        for share in ("p50", "p99")
    ),
]

BOUNDS = [
    ("server memory per idle consumer, KiB", "crowd.bytes-1000", MEMORY, 1024, 50),
    ("server memory per idle consumer (9,500), KiB", "crowd.bytes-9500", MEMORY, 1024, 50),
    ("5,000 messages to 5,000 consumers, s", "crowd.reach-5000-seconds", MEMORY, 1, 10),
    ("memory per queued 100-byte message, bytes", "memory.bytes", MEMORY, 1, 300),
    ("50 consumers, 800/s: p99, ms (if the bare call's is below 3)", "paced-800.deq-p99", MEMORY, 1000, 10),
    ("bare call beside it: p99, ms", "paced-800.enq-p99", "echo", 1000, 3),
    ("10 million waiting: server memory, MB", "backlog-10000000.rss-restarted", DURABLE, 1e6, 300),
    ("10 million waiting: ready after a restart, s", "backlog-10000000.restart-seconds", DURABLE, 1, 3),
    ("10 million waiting: file size / payload", "backlog-10000000.disk", DURABLE, 1, 2),
]
"""(text, metric, system, unit, at most): what is not a ratio of rates."""


RATES = [
    ("memory, enq_soon, a second", "ahead.in", MEMORY, 50_000),
    ("durable, enq_soon, a second", "ahead.in", DURABLE, 30_000),
    ("memory, deq with prefetch 100, a second", "ahead.out", MEMORY, 60_000),
]
"""(text, metric, system, at least)."""


def judge(results: Results) -> list[Verdict]:
    """Return the results of the targets that were measured."""
    verdicts = []
    for target in TARGETS:
        ratio = results.ratio(target.metric, target.system, target.base_metric, target.base)
        if ratio is not None:
            verdicts.append(Verdict(target, *ratio))
    return verdicts
