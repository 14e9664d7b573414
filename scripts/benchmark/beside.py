"""How long small messages take while another producer and consumer have large ones, each in a process of its own."""

from __future__ import annotations

from benchmark.measure import Stage

LARGEST = (4 << 20) - (16 << 10)
"""The largest body that a server takes by default."""
WARM_UP = 0.2
"""Which part of the time is for getting under way, and does not count."""


def beside_large(stage: Stage) -> None:
    """One small message at a time, in and out, without and with large ones in another queue of the same server."""
    seconds = stage.scale.paced_seconds / 2

    def turn(system: str, warm_up: bool) -> None:
        producer, consumer = stage.hand(system), stage.hand(system, "b")
        small = stage.new_hand(system, stage.server(system), "bystander")

        def spreads() -> dict[str, dict[str, float]]:
            small.do("spreads", seconds=seconds * WARM_UP)
            found: dict[str, dict[str, float]] = small.do("spreads", seconds=seconds).result
            return found

        try:
            alone = spreads()
            consumer.begin("receive", consumers=1)
            producer.begin("flow", seconds=seconds * (1 + 2 * WARM_UP), size=LARGEST)
            beside = spreads()
            rate = producer.end().result
            consumer.end()
        finally:
            small.close()
        if warm_up:
            return
        stage.results.add("beside-large.rate", system, rate)
        for name, found in (("alone", alone), ("beside", beside)):
            for call, spread in found.items():
                for share in ("p50", "p99"):
                    stage.results.add(f"beside-large.{call}-{name}-{share}", system, spread[share])

    stage.interleave("beside-large", turn, ["stiqueue", "stiqueue-durable"])
