"""Keys of a data file: strands that are longer than memory, restarts, and files from before there were keys."""

from __future__ import annotations

import random
import sqlite3
import threading
from collections import defaultdict, deque
from concurrent.futures import Future
from contextlib import closing
from itertools import chain
from pathlib import Path

import pytest

from stiqueue.engines.local import recorder
from stiqueue.engines.local.change import LaneName
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.sqlite.damage.salvage import check, salvage
from stiqueue.engines.sqlite.log import SqliteLog
from stiqueue.engines.sqlite.schema import SCHEMA_VERSION
from stiqueue.message import Batch, Outcome, PeekQuery, Receipt, Settlement, State, Subscription
from stiqueue.rules import key_window
from stiqueue.rules.lane import Window
from stiqueue.rules.lease import Lease

from .desk import PATIENCE, ack, as_killed, as_of_version, bodies, drain, enqueue, opened, take

SMALL = Window(20, 1 << 20)


@pytest.fixture
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_window, "KEY_MESSAGES", 5)
    monkeypatch.setattr(key_window, "PAGES", (4, 2, 1))
    monkeypatch.setattr(key_window, "AHEAD", 3)


@pytest.mark.slow
@pytest.mark.usefixtures("_little_memory")
@pytest.mark.parametrize("number", range(10))
def test_a_queue_longer_than_memory_keeps_the_order_of_each_key(tmp_path: Path, number: int) -> None:
    """Keys and priorities in batches, several consumers, messages given back, restarts: what must hold for each key."""
    chance = random.Random(number)
    waiting: defaultdict[str, deque[int]] = defaultdict(deque)
    path = tmp_path / "queue.db"
    for life in range(3):
        with opened(path, sync=False, window=SMALL) as engine:
            for _ in range(40):
                key, size = chance.choice(["", "a", "b", "c", "d", "e"]), chance.randrange(1, 15)
                first = enqueue(engine, *[b"x"] * size, key=key).first_id
                waiting[key].extend(range(first, first + size))
            shown = [each for chunk in engine.peek_now(PeekQuery("default")) for each in chunk]
            assert [each.entry.id for each in shown] == sorted(chain(*waiting.values()))
            consumers = [engine.subscribe(Subscription("default", prefetch=size, wait=0.0)) for size in (1, 2, 7)]
            held: dict[str, Lease] = {}
            rounds = 150 if life < 2 else 100_000
            while rounds and consumers:
                rounds -= 1
                consumer = chance.choice(consumers)
                given = consumer.take()
                if given is None:
                    consumers.remove(consumer)
                    if any(waiting.values()):
                        consumers.append(engine.subscribe(Subscription("default", prefetch=3, wait=0.0)))
                for lease in given or ():
                    key = lease.key
                    if key:
                        assert key not in {each.key for each in held.values()}, "two at a time"
                        assert waiting[key][0] == lease.id, "out of order"
                    held[lease.lease_id] = lease
                if held and (not given or chance.random() < 0.5):
                    lease = held.pop(chance.choice(list(held)))
                    back = chance.random() < 0.2
                    settlement = Settlement([lease.lease_id], Outcome.REQUEUE if back else Outcome.ACK)
                    answer = engine.settle_now(settlement)
                    assert (answer if isinstance(answer, list) else answer.result(PATIENCE)) == []
                    if not back:
                        waiting[lease.key].remove(lease.id)
                elif not given:
                    engine.flush().result(PATIENCE)
            (counts,) = engine.counts_now(["default"])
            assert counts.ready + counts.leased == sum(map(len, waiting.values()))
    assert not any(waiting.values())
    assert not held


@pytest.mark.usefixtures("_little_memory")
def test_what_waits_behind_a_busy_key_does_not_hold_up_another(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        enqueue(engine, *[b"busy"] * 500, key="busy")
        enqueue(engine, b"free", key="free")
        enqueue(engine, b"none")
        assert bodies(take(engine, 3)) == [b"busy", b"free", b"none"]
        assert engine.counts_now(["default"])[0].blocked == 499
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        assert [lease.body for lease in take(engine, 3)] == [b"busy", b"free", b"none"]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("blocked", [20_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
def test_a_free_key_behind_many_blocked_messages_of_a_data_file(tmp_path: Path, blocked: int) -> None:
    with opened(tmp_path / "queue.db", sync=False) as engine:
        for _ in range(blocked // 1_000):
            engine.submit(Batch("default", [b"busy"] * 1_000, key="busy"))
        enqueue(engine, b"free", b"blocked", key="free")
        assert bodies(take(engine, 2)) == [b"busy", b"free"]
    with opened(tmp_path / "queue.db", sync=False) as engine:
        assert bodies(take(engine, 2)) == [b"busy", b"free"]
        (counts,) = engine.counts_now(["default"])
        assert (counts.leased, counts.ready, counts.blocked) == (2, blocked, blocked)
        in_memory = [strand.in_memory for strand in engine._queues.open("default").backlog.ready.strands.values()]
        assert sum(in_memory) <= key_window.PAGES[0] + 1, "no more than a page was read of each key"


@pytest.mark.usefixtures("_little_memory")
def test_a_key_is_read_by_priority(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        for priority in (0, 9, 3):
            enqueue(engine, *[b"%d" % priority] * 30, key="a", priority=priority)
        assert bodies(drain(engine)) == [b"9"] * 30 + [b"3"] * 30 + [b"0"] * 30


def test_a_look_right_after_a_start_misses_nothing(tmp_path: Path) -> None:
    """While it looks, the engine reads messages of the file into memory."""
    path = tmp_path / "queue.db"
    with opened(path, sync=False) as engine:
        for number in range(60):
            key, priority = ("", "a", "b", "c")[number % 4], (0, 1, 255)[number % 3]
            enqueue(engine, b"%d" % number, key=key, priority=priority, delay=1_000.0 if number % 5 == 4 else 0.0)
    missing = []
    enough = threading.Event()
    busy = threading.Thread(target=lambda: [None for _ in iter(enough.is_set, True)])
    busy.start()
    try:
        for _ in range(5):
            with opened(path, sync=False) as engine:
                query = PeekQuery("default", state=State.ALL)
                shown = {int(each.entry.body) for chunk in engine.peek_now(query) for each in chunk}
                missing.append(set(range(60)) - shown)
    finally:
        enough.set()
        busy.join(PATIENCE)
    assert missing == [set()] * 5


def rows(path: Path) -> list[tuple[int, ...]]:
    """Return the number of messages in each row of a data file, and how many of them are gone."""
    gone = "SELECT gone_before - gone_from FROM lane WHERE no = key >> 44 AND gone_from = key & (1 << 44) - 1"
    copy = as_killed(path, path.with_name("look.db"))
    with closing(sqlite3.connect(copy)) as file:
        return file.execute(f"SELECT length(parts) / 8, ifnull(({gone}), 0) FROM message ORDER BY key").fetchall()


def take_ids(engine: LocalEngine, *ids: int) -> list[Lease]:
    """Lease messages by their ids."""
    consumer = engine.subscribe(Subscription("default", prefetch=len(ids), ids=ids))
    return consumer.take_waiting() or []


@pytest.mark.parametrize("key", ["", "one"])
@pytest.mark.parametrize("delay", [0.0, 1e-3])
def test_messages_leave_a_row_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str, delay: float
) -> None:
    """The rest of the row is not written anew each time, and those that left do not come back after a kill."""
    monkeypatch.setattr(recorder, "RECORD_SECONDS", 3_600.0)  # an attempt is written with a row of its own
    path, sent = tmp_path / "queue.db", [b"%d" % number for number in range(5)]
    with opened(path) as engine:
        enqueue(engine, *sent, key=key, delay=delay)
        consumer = engine.subscribe(Subscription("default", prefetch=1))
        for number, body in enumerate(sent):
            (lease,) = consumer.take_waiting() or consumer.take_waiting() or ()
            assert lease.body == body
            for salvaged in (False, True):
                killed = as_killed(path, tmp_path / f"{number}{salvaged}.db")
                assert rows(killed) == [(5, number)]
                assert check(killed).problems == []
                if salvaged:
                    killed = tmp_path / f"{number}.db"
                    assert salvage(tmp_path / f"{number}True.db", killed).saved == 5 - number
                with opened(killed) as other:
                    assert bodies(take(other, 1)) == [body]
                    (counts,) = other.counts_now(["default"])
                    assert counts.ready + counts.leased + counts.delayed == 5 - number
            assert ack(engine, [lease]) == []
    assert rows(path) == []


def test_a_row_is_written_anew_for_another_message_than_its_first(tmp_path: Path) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as engine:
        enqueue(engine, *[b"%d" % number for number in range(9)], key="one")
        assert ack(engine, take_ids(engine, 1, 2)) == []
        assert rows(path) == [(9, 2)]
        assert ack(engine, take_ids(engine, 5)) == []
        assert rows(path) == [(2, 0), (4, 0)]
        leases = take_ids(engine, 6)
        engine.settle_now(Settlement([leases[0].lease_id], Outcome.REQUEUE, 60.0))
        engine.flush().result(PATIENCE)
        assert rows(path) == [(2, 0), (1, 0), (3, 0)]
    assert check(path).problems == []


def test_a_key_that_was_given_back_with_a_delay_is_held_up_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        enqueue(engine, b"1", b"2", key="a")
        enqueue(engine, b"later", key="b", delay=1_000.0)
        enqueue(engine, b"b", key="b")
        (lease,) = take(engine, 2)[:1]
        engine.settle_now(Settlement([lease.lease_id], Outcome.REQUEUE, 1_000.0))
    for _ in range(2):
        with opened(tmp_path / "queue.db", window=SMALL) as engine:
            (counts,) = engine.counts_now(["default"])
            assert (counts.ready, counts.delayed, counts.blocked) == (2, 2, 1)
            assert bodies(take(engine, 1)) == [b"b"]
            shown = [each for chunk in engine.peek_now(PeekQuery("default", state=State.DELAYED)) for each in chunk]
            assert all(each.ready_time_ms > 0 for each in shown)


def test_the_next_of_a_key_waits_until_the_one_before_is_written(tmp_path: Path) -> None:
    """A crash before that would bring it back after the next one had been delivered."""
    held, gate = threading.Event(), threading.Event()

    def hold(_: object) -> None:
        held.set()
        gate.wait(PATIENCE)

    with opened(tmp_path / "queue.db") as engine:
        enqueue(engine, b"1", b"2", key="a")
        enqueue(engine, b"3", b"4", key="b")
        first, other = take(engine, 2)
        log = engine._log
        assert isinstance(log, SqliteLog)
        try:
            log.journal.load(LaneName("default", 0), 0, 0, hold)
            assert held.wait(PATIENCE)  # so that both are written together, and one consumer gets what follows of both
            answer = engine.settle_now(Settlement([first.lease_id]))
            dead = engine.settle_now(Settlement([other.lease_id], Outcome.DEAD_LETTER))
            (counts,) = engine.counts_now(["default"])
            assert (counts.leased, counts.blocked) == (0, 2)
        finally:
            gate.set()
        assert isinstance(answer, Future)
        assert isinstance(dead, Future)
        assert (answer.result(PATIENCE), dead.result(PATIENCE)) == ([], [])
        (counts,) = engine.counts_now(["default"])
        assert (counts.leased, counts.blocked) == (2, 0), "handed to the consumer that waits"


def test_a_unique_key_is_known_after_a_restart_until_its_message_is_done(tmp_path: Path) -> None:
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        first = enqueue(engine, b"1", unique_key="u", headers={"a": "b"})
        enqueue(engine, b"other", unique_key="v")
        again = enqueue(engine, b"2", unique_key="u", request_id="r")
        assert (again.first_id, again.duplicate) == (first.first_id, True)
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        again = enqueue(engine, b"3", unique_key="u")
        assert (again.first_id, again.duplicate) == (first.first_id, True)
        (lease, _) = take(engine, 2)
        assert (lease.unique_key, lease.headers) == ("u", {"a": "b"})
        assert ack(engine, [lease]) == []
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        repeated = enqueue(engine, b"2", unique_key="u", request_id="r")
        assert (repeated.first_id, repeated.duplicate) == (first.first_id, True), "answered as the first time"
        new = enqueue(engine, b"4", unique_key="u")
        assert not new.duplicate
        assert bodies(drain(engine)) == [b"other", b"4"]


def test_of_two_that_come_together_one_is_enqueued(tmp_path: Path) -> None:
    """The second comes while the first is being written."""
    with opened(tmp_path / "queue.db", window=SMALL) as engine:
        answers = [engine.submit(Batch("default", [b"a"], unique_key="u")) for _ in range(5)]
        receipts = [each if isinstance(each, Receipt) else each.result(PATIENCE) for each in answers]
        assert [each.first_id for each in receipts] == [1] * 5
        assert [each.duplicate for each in receipts] == [False, True, True, True, True]
        assert len(drain(engine)) == 1


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_file_of_an_older_version_is_taken_over(tmp_path: Path, version: int) -> None:
    path = tmp_path / "queue.db"
    with opened(path) as engine:
        enqueue(engine, b"1", headers={"a": "b"})
        enqueue(engine, b"2", priority=3)
    as_of_version(path, version)
    assert check(path).problems == []
    for life in range(2):
        with opened(path) as engine:
            enqueue(engine, b"new", key="k", unique_key=f"u{life}")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    with opened(path) as engine:
        assert bodies(drain(engine)) == [b"2", b"1", b"new", b"new"]
