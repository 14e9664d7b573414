"""The counters of every queue stay exact, and names that nobody uses do not stay."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clock import FakeClock

from stiqueue.engines.local.change import Change, Insert, LaneName, Remove
from stiqueue.engines.sqlite import journal
from stiqueue.engines.sqlite import writer as module
from stiqueue.engines.sqlite.rows import FLOOR_LANE, MAX_ID
from stiqueue.engines.sqlite.schema import PAGE_SIZE, create
from stiqueue.engines.sqlite.store import Store
from stiqueue.engines.sqlite.writer import Writer
from stiqueue.errors import LimitReached, StoreError
from stiqueue.rules.entry import Entry, Properties
from stiqueue.rules.run import Run

from .desk import bodies, drain, enqueue, opened


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """An open store."""
    create(tmp_path / "stiqueue.db")
    store = Store(tmp_path / "stiqueue.db", sync=False)
    yield store
    store.close()


def entries(first: int, number: int, priority: int = 0) -> list[Entry]:
    """Make messages of 10 bytes."""
    return [Entry(first + n, b"0123456789", 0, Properties(1_000, priority)) for n in range(number)]


def insert(queue: str, first: int, number: int = 1, priority: int = 0) -> Change:
    """Make the change that enqueues messages."""
    run = Run(first, [b"0123456789"] * number, Properties(1_000, priority))
    return Change(inserts=[Insert(queue, run, 10 * number)])


def remove(queue: str, first: int, number: int = 1, priority: int = 0) -> Change:
    """Make the change that acknowledges messages."""
    return Change(removes=[Remove.of(LaneName(queue, priority), entries(first, number, priority))])


def counters(store: Store) -> dict[tuple[str, int], tuple[int, int, int]]:
    """Return messages, bytes and the last id of each lane, as the file has them."""
    return {(lane.queue, lane.priority): (lane.messages, lane.bytes, lane.last_id) for lane in store.lanes()}


def test_counters_are_exact(store: Store) -> None:
    writer = Writer(store, FakeClock())
    writer.write([insert("a", 1, 5), insert("b", 1, 2, 7), insert("a", 6, 2), remove("a", 2, 3)])
    assert counters(store) == {("a", 0): (4, 40, 7), ("b", 7): (2, 20, 2)}
    writer.write([remove("a", 1), remove("a", 5, 3), insert("a", 8, priority=1)])
    assert counters(store) == {("a", 0): (0, 0, 7), ("a", 1): (1, 10, 8), ("b", 7): (2, 20, 2)}
    assert writer.seq == max(lane.seq for lane in store.lanes()) == 2


def test_messages_that_are_far_apart_are_removed_without_a_look_at_what_is_between(store: Store) -> None:
    writer = Writer(store, FakeClock())
    far = 1 << 40
    writer.write([insert("a", 1), insert("a", far)])
    tracemalloc.start()
    try:
        writer.write([Change(removes=[Remove.of(LaneName("a", 0), entries(1, 1) + entries(far, 1))])])
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 1 << 20
    assert counters(store) == {("a", 0): (0, 0, far)}


def test_a_failed_transaction_changes_nothing(store: Store) -> None:
    writer = Writer(store, FakeClock())
    writer.write([insert("a", 1)])
    before = store.lanes()
    with pytest.raises(sqlite3.IntegrityError):
        writer.write([insert("new", 1), insert("a", 1)])
    assert store.lanes() == before
    assert writer.seq == 1
    writer.write([insert("new", 1)])
    assert sorted(lane.no for lane in store.lanes()) == [1, 2]


def test_numbers_of_lanes_are_used_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LANES", 50)
    monkeypatch.setattr(module, "MOST_EMPTY_LANES", 20)
    writer = Writer(store, FakeClock())
    writer.write([insert("kept", 1)])
    for n in range(500):
        writer.write([insert(f"q{n}", 1)])
        writer.write([remove(f"q{n}", 1)])
        writer.forget_lanes()
    assert len(store.lanes()) < 30
    assert max(lane.no for lane in store.lanes()) < 50
    assert counters(store)["kept", 0] == (1, 10, 1)


def test_more_lanes_than_numbers(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LANES", 10)
    writer = Writer(store, FakeClock())
    for n in range(9):
        writer.write([insert(f"q{n}", 1)])
    with pytest.raises(StoreError, match="more than there are numbers for"):
        writer.write([insert("one more", 1)])


def test_ids_rise_over_a_forgotten_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EMPTY_LANES", 2)
    writer = Writer(store, FakeClock())
    for n in range(5):
        writer.write([insert(f"q{n}", 100 * n + 1, 10)])
        writer.write([remove(f"q{n}", 100 * n + 1, 10)])
    seq = writer.seq
    writer.forget_lanes()
    assert [lane.queue for lane in store.lanes()] == ["", "q4"]
    assert (writer.floor, writer.seq) == (310, seq + 1)
    again = Writer(store, FakeClock())
    assert (again.floor, again.seq) == (310, seq + 1)
    assert FLOOR_LANE not in {lane.no for lane in again.lanes.values()}


def test_a_queue_that_comes_back_after_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_EMPTY_LANES", 4)
    path = tmp_path / "stiqueue.db"
    with opened(path) as engine:
        last = {f"q{n}": enqueue(engine, *[b"x"] * (n + 1), queue=f"q{n}").first_id + n for n in range(30)}
        for queue in last:
            drain(engine, queue)
        engine.flush().result(10)
    with opened(path) as engine:
        for queue, highest in last.items():
            assert enqueue(engine, b"y", queue=queue).first_id > highest
        assert bodies(drain(engine, "q7")) == [b"y"]


@pytest.mark.slow
def test_many_names_used_once(store: Store) -> None:
    """30,000 names leave no more behind than a few thousand."""
    writer = Writer(store, FakeClock())
    peak = 0
    for begin in range(0, 30_000, 1_000):
        names = [f"name-{n}" for n in range(begin, begin + 1_000)]
        writer.write([insert(name, 1) for name in names])
        writer.write([remove(name, 1) for name in names])
        writer.forget_lanes()
        store.checkpoint()
        peak = max(peak, store.path.stat().st_size)
    assert len(writer.lanes) <= module.MOST_EMPTY_LANES
    assert peak < 2 << 20


def test_the_highest_id(store: Store) -> None:
    writer = Writer(store, FakeClock())
    writer.write([insert("a", MAX_ID - 1, 2), insert("b", 1)])
    assert [row.id for row in store.page(1, 0, 10)] == [MAX_ID - 1, MAX_ID]
    assert [row.id for row in store.page(2, 0, 10)] == [1]
    with pytest.raises(StoreError, match="no ids left"):
        writer.write([insert("a", MAX_ID + 1)])


def test_too_many_lanes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "MOST_LANES", 3)
    with opened(tmp_path / "stiqueue.db") as engine:
        for priority in range(3):
            enqueue(engine, b"x", priority=priority)
        with pytest.raises(LimitReached, match="too many queues with too many priorities"):
            enqueue(engine, b"x", priority=3)
        assert len(drain(engine)) == 3


@pytest.mark.parametrize("count", [1, 5])
def test_a_large_body_that_goes_is_not_reckoned_as_written(store: Store, count: int) -> None:
    """Its pages only join the list of unused ones, so the log needs no checkpoint for them."""
    writer = Writer(store, FakeClock())
    large = bytes(1 << 20)
    run = Run(1, [large] * count, Properties(1_000))
    reckoned_in = writer.write([Change(inserts=[Insert("a", run, count << 20)])])
    store.checkpoint(cut=True)
    gone = [Entry(1 + n, large, 0, Properties(1_000)) for n in range(count)]
    reckoned_out = writer.write([Change(removes=[Remove.of(LaneName("a", 0), gone)])])
    written = Path(f"{store.path}-wal").stat().st_size // PAGE_SIZE
    assert written <= reckoned_out < reckoned_in // 10
