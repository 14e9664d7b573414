"""How much of each queue is in memory when a data file has the rest."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from support.waiting import until

from stiqueue.engines.opening import open_engine
from stiqueue.engines.sqlite.rows import Row
from stiqueue.errors import StiQueueError
from stiqueue.message import Batch
from stiqueue.rules.engine import ready
from stiqueue.rules.lane import LEAST_MESSAGES, Window

from .desk import PATIENCE, ack, bodies, drain, enqueue, opened, take


def test_a_single_queue_has_all_of_it_and_many_share_twice_as_much() -> None:
    whole, share = Window(100_000, 32 << 20), Window()
    for queues, messages in (1, 100_000), (2, 100_000), (10, 20_000), (1_000, LEAST_MESSAGES):
        share.divide(whole, queues)
        assert share.messages == messages


def test_a_queue_keeps_less_in_memory_when_others_come(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "queue.db", window=Window(100_000, 32 << 20))

    async def fill() -> None:
        await engine.start()
        try:
            for number in range(20):
                await ready(engine.enq(Batch(f"q{number}", [b"a"])))
            for _ in range(12):
                await ready(engine.enq(Batch("q0", [b"a"] * 1_000)))
            (lane,) = engine._queues.open("q0").backlog.ready.lanes.values()
            assert len(lane) == 12_001
            assert lane.messages == 10_001
            assert lane.stored == 2_000
        finally:
            await engine.close()

    asyncio.run(fill())


def test_what_is_left_to_the_journal_comes_at_its_place(tmp_path: Path) -> None:
    """Batches of many sizes and three priorities, far beyond the window, with some given back in the middle."""
    with opened(tmp_path / "queue.db", window=Window(500, 1 << 20)) as engine:
        sent: list[tuple[int, int, bytes]] = []
        for number in range(60):
            priority, size = number % 3, 1 + number * 37 % 200
            batch = [b"%d.%d" % (number, each) for each in range(size)]
            first = enqueue(engine, *batch, priority=priority).first_id
            sent += [(-priority, first + each, body) for each, body in enumerate(batch)]
        (lanes,) = [queue.backlog.ready.lanes.values() for queue in engine._queues.all()]
        assert any(lane.stored for lane in lanes)
        held = take(engine, 700)
        sent.sort()
        assert [lease.body for lease in held] == [body for _, _, body in sent[:700]]
        assert ack(engine, held[100:600]) == []
        held[0].owner.close()
        expected = [body for _, _, body in sent[:100] + sent[600:]]
        assert bodies(drain(engine)) == expected


def test_a_file_is_closed_while_a_part_of_a_queue_is_read(tmp_path: Path) -> None:
    """What was acked meanwhile is acked, and nothing is called a defect."""
    path, window = tmp_path / "queue.db", Window(100, 1 << 20)
    with opened(path, window=window) as engine:
        enqueue(engine, *[b"%d" % number for number in range(10_000)])
    engine = open_engine(path, window=window)
    failures: list[StiQueueError] = []
    engine.on_failure = failures.append
    engine.start_now()
    (lease, *_) = take(engine, 1)
    journal = engine._log.journal
    reading, go_on, page = threading.Event(), threading.Event(), journal._store.page

    def slow(*asked: int) -> list[Row]:
        reading.set()
        go_on.wait(PATIENCE)
        return page(*asked)

    journal._store.page = slow  # type: ignore[method-assign]
    take(engine, 1_960)
    assert reading.wait(PATIENCE)
    assert engine.exchange(lease.lease_id) is not None
    closing = threading.Thread(target=engine.close_now)
    closing.start()
    until(lambda: engine._queues.refusal is not None)
    go_on.set()
    closing.join(PATIENCE)
    assert failures == []
    with opened(path) as engine:
        assert [each.body for each in take(engine, 1)] == [b"1"]
