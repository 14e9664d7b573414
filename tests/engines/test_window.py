"""How much of each queue is in memory when a data file has the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stiqueue.engines.durable import DurableEngine
from stiqueue.lane import LEAST_MESSAGES, Window
from stiqueue.message import Batch


def test_a_single_queue_has_all_of_it_and_many_share_twice_as_much() -> None:
    whole, share = Window(100_000, 32 << 20), Window()
    for queues, messages in (1, 100_000), (2, 100_000), (10, 20_000), (1_000, LEAST_MESSAGES):
        share.divide(whole, queues)
        assert share.messages == messages


def test_a_queue_keeps_less_in_memory_when_others_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DurableEngine, "window", Window(100_000, 32 << 20))
    engine = DurableEngine(tmp_path / "queue.db")

    async def fill() -> None:
        await engine.start()
        try:
            for number in range(20):
                await engine.enq(Batch(f"q{number}", [b"a"]))
            for _ in range(12):
                await engine.enq(Batch("q0", [b"a"] * 1_000))
            (lane,) = engine._queues.open("q0").pending.lanes.values()
            assert len(lane) == 12_001
            assert lane.messages == 10_001
            assert lane.stored == 2_000
        finally:
            await engine.close()

    asyncio.run(fill())
