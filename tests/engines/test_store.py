"""Rows: they come back as they were, and a changed one is noticed."""

from __future__ import annotations

import os
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from stiqueue.engines.sqlite.packs import PACK_BYTES, Pack, pack
from stiqueue.engines.sqlite.rows import (
    ID_BITS,
    Common,
    LaneRow,
    RequestRow,
    Row,
    is_right,
    row_crc,
    row_crcs,
    shared_crc,
)
from stiqueue.engines.sqlite.schema import PAGE_SIZE, create
from stiqueue.engines.sqlite.store import Store
from stiqueue.engines.sqlite.tables import READ_BYTES
from stiqueue.engines.sqlite.view import View
from stiqueue.errors import StoreDamaged, StoreError

LIKE = Common(1_700_000_000_000)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new, empty data file."""
    create(tmp_path / "stiqueue.db")
    return tmp_path / "stiqueue.db"


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    """An open store."""
    store = Store(path, sync=False)
    yield store
    store.close()


def insert(store: Store, bodies: list[bytes], like: Common = LIKE, lane: int = 1) -> list[int]:
    """Insert messages with the ids 1, 2, ...; return their keys."""
    first = (lane << ID_BITS) + 1
    with store.transaction():
        store.insert(pack(first, bodies, like))
    return list(range(first, first + len(bodies)))


@pytest.mark.parametrize(("sync", "level"), [(True, 2), (False, 0)])
def test_what_is_synced_is_on_the_disk_on_macos_too(path: Path, sync: bool, level: int) -> None:
    store = Store(path, sync)
    found = [store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "fullfsync")]
    store.close()
    assert found == [level, 1]


def delete(store: Store, keys: Iterable[int]) -> None:
    """Delete messages."""
    with store.transaction():
        store.change([list(keys)], {}, {})


def everything(store: Store) -> list[Row]:
    """Return all messages; a read stops after some rows of the table."""
    rows: list[Row] = []
    while more := store.every(rows[-1].key if rows else -1, 10_000):
        rows += more
    return rows


def packs(store: Store) -> list[int]:
    """Return how many messages each row of the table has."""
    return [n for (n,) in store._db.execute("SELECT length(parts) / 8 FROM message ORDER BY key").fetchall()]


BODIES = [
    b"",
    b"\0",
    b"\0\0,",
    b"\xff\xfe\x80",
    b"',\"",
    "ü☃".encode(),
    b"x" * 100_000,
    *map(os.urandom, range(1, 300)),
]


def test_bodies_come_back_exact(store: Store) -> None:
    insert(store, BODIES)
    assert [row.body for row in store.page(1, 0, 10_000)] == BODIES
    assert [row.id for row in store.page(1, 5, 10)] == list(range(6, 16))


@pytest.mark.parametrize("headers", [None, '{"a":"b"}', '{"ü":"☃,\\u0000"}'])
def test_columns_come_back_exact(store: Store, headers: str | None) -> None:
    like = LIKE._replace(attempt=3, expires_ms=5, headers=headers)
    insert(store, [b"a", b"b"], like)
    rows = store.page(1, 0, 10)
    assert [row[1:6] for row in rows] == [like, like]


def test_pages_are_bounded_in_bytes(store: Store) -> None:
    large = [b"a" * (READ_BYTES // 3), b"b" * (READ_BYTES + 1), b"c", b"d" * READ_BYTES]
    insert(store, large)
    sizes = []
    after = 0
    while rows := store.page(1, after, 1_000):
        sizes.append(len(rows))
        after = rows[-1].id
    assert sizes == [1, 1, 1, 1]


def test_delete_in_runs_and_single(store: Store) -> None:
    keys = insert(store, [b"%d" % n for n in range(2_500)])
    gone = {*keys[:1_200], *keys[1_300:2_400:7], keys[-1]}
    delete(store, random.sample(sorted(gone), len(gone)))
    assert [row.key for row in everything(store)] == [key for key in keys if key not in gone]


def test_a_message_to_delete_that_is_missing_is_damage(store: Store) -> None:
    keys = insert(store, [b"a", b"b"])
    with pytest.raises(StoreDamaged, match="1 of 3 messages to remove are missing"):
        delete(store, [*keys, keys[-1] + 5])
    assert len(store.every(-1, 10)) == 2
    delete(store, keys[:1])
    with pytest.raises(StoreDamaged, match="1 of 2 messages to remove are missing"):
        delete(store, keys)


def test_a_message_that_is_to_be_deleted_twice_takes_no_other_along(store: Store) -> None:
    keys = insert(store, [b"a", b"b", b"c"])
    with pytest.raises(StoreDamaged, match="1 of 3 messages to remove are missing"):
        delete(store, [keys[0], keys[0], keys[2]])
    assert len(everything(store)) == 3


def in_ranges(keys: Iterable[int], chance: random.Random) -> list[range]:
    """Return keys as ranges of consecutive ones, some of them divided, in any order."""
    ranges: list[range] = []
    for key in sorted(keys):
        if ranges and ranges[-1].stop == key and chance.random() < 0.99:
            ranges[-1] = range(ranges[-1].start, key + 1)
        else:
            ranges.append(range(key, key + 1))
    return chance.sample(ranges, len(ranges))


def altered(row: Row, **columns: int) -> Row:
    """Return a message with other columns, and the check of these."""
    row = row._replace(**columns)
    return row._replace(crc=row_crc(shared_crc(*row[1:6]), row.key, row.body))


def test_the_checks_of_many_rows_are_those_of_each() -> None:
    """Also where the upper half of the key changes, of which there is another part in the check."""
    for first in (1 << ID_BITS | 1, (7 << ID_BITS) + (1 << 32) - 3):
        bodies = [b"%d" % n for n in range(6)]
        alone = [row_crc(0xFFFFFFFE, first + n, body) for n, body in enumerate(bodies)]
        assert row_crcs(0xFFFFFFFE, first, bodies) == alone
    assert row_crcs(1, 1, []) == []


def test_update(store: Store) -> None:
    key, other = insert(store, [b"a", b"b"])
    row = altered(store.every(-1, 1)[0], attempt=7, due_ms=9)
    with store.transaction():
        store.change([], {key: row, other + 1: row._replace(key=other + 1)}, {})
    assert store.delayed() == [row]
    assert [each.key for each in store.page(1, 0, 10)] == [other]


def test_messages_share_a_row_up_to_a_page(store: Store) -> None:
    insert(store, [b"x" * 100] * 100)
    assert packs(store) == [36, 36, 28]
    insert(store, [b"x" * 5_000, b"x", b"y" * PACK_BYTES, b"", b""], lane=2)
    assert packs(store)[3:] == [1, 1, 1, 2]
    insert(store, [b"x" * 100] * 40, LIKE._replace(headers='{"a":"%s"}' % ("b" * 3_700)), lane=3)
    assert packs(store)[7:] == [1] * 40
    # One row and its header go into a page.
    assert store._db.execute("PRAGMA page_count").fetchone()[0] < 4 + 10 + 50


@pytest.mark.slow
def test_random_changes_against_a_dictionary(store: Store) -> None:
    """Inserts, deletes and updates of any messages, in transactions of any size."""
    seed = random.randrange(10**9)
    print(f"{seed=}")
    chance = random.Random(seed)
    there: dict[int, Row] = {}
    next_id = dict.fromkeys((1, 2), 1)
    lanes = {no: LaneRow(no, f"q{no}", 0) for no in next_id}
    went: set[int] = set()
    for _ in range(300):
        with store.transaction():
            lane = chance.choice((1, 2))
            like = LIKE._replace(time_ms=chance.choice((1, 2)), due_ms=chance.choice((None, None, 5)))
            bodies = [
                chance.randbytes(chance.choice((0, 10, 100, 4_000))) for _ in range(chance.choice((0, 1, 5, 300)))
            ]
            made = pack(lane << ID_BITS | next_id[lane], bodies, like)
            next_id[lane] += len(bodies) + chance.choice((0, 0, 1))
            store.insert(made)
            there |= {row.key: row for pack in made for row in pack.rows()}
            keys = sorted(there)
            start = chance.randrange(len(keys) + 1)
            gone = {*keys[start : start + chance.choice((0, 1, 3, 150, 600))], *chance.sample(keys, len(keys) // 50)}
            new = {
                key: altered(there[key], attempt=chance.choice((1, 2))) for key in chance.sample(keys, len(keys) // 40)
            }
            mixed = [chance.sample(sorted(gone), len(gone))]
            store.change(chance.choice((mixed, in_ranges(gone, chance))), new, lanes)
            store.save_lanes(lanes.values())
            there = {key: row for key, row in {**there, **new}.items() if key not in gone}
        for no in (1, 2):
            expected = [there[key] for key in sorted(there) if key >> ID_BITS == no and there[key].due_ms is None]
            after = chance.choice((0, chance.randrange(next_id[no])))
            read: list[Row] = []
            while more := store.page(no, read[-1].id if read else after, chance.choice((1, 10, 1_000))):
                read += more
            assert read == [row for row in expected if row.id > after]
        assert store.delayed() == [there[key] for key in sorted(there) if there[key].due_ms is not None]
        assert everything(store) == [there[key] for key in sorted(there)]
        left = {no: lane.gone_before - lane.gone_from for no, lane in lanes.items()}
        packed = {no: messages - left[no] for no, (messages, _, _) in store.totals().items()}
        assert packed == Counter(key >> ID_BITS for key in there)
        went.update(no for no in lanes if left[no])
    assert went == {1, 2}, "no pack lost its first messages alone"
    assert all(map(is_right, there.values()))


def test_the_check_covers_every_bit_of_a_row() -> None:
    row = Row(5 << ID_BITS | 77, 1_700_000_000_000, 1, 3, 4, '{"a":"b"}', 0, b"body")
    right = row_crc(shared_crc(*row[1:6]), row.key, row.body)
    others = [row._replace(key=row.key ^ 1 << bit) for bit in range(63)]
    others += [row._replace(time_ms=row.time_ms ^ 1 << bit) for bit in range(63)]
    others += [row._replace(attempt=row.attempt ^ 1 << bit) for bit in range(31)]
    others += [row._replace(due_ms=3 ^ 1 << bit, expires_ms=4) for bit in range(63)]
    others += [row._replace(expires_ms=4 ^ 1 << bit) for bit in range(63)]
    others += [row._replace(body=b"bodx"), row._replace(headers='{"a":"c"}'), row._replace(headers=None)]
    assert all(row_crc(shared_crc(*other[1:6]), other.key, other.body) != right for other in others)


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ("bodies = CAST('goodBAD' AS BLOB)", 2),
        ("bodies = CAST('GOODbad' AS BLOB)", 1),
        ("bodies = CAST('goodbad ' AS BLOB)", 2),
        ("bodies = CAST('goodba' AS BLOB)", 2),
        ("parts = CAST(x'03' || substr(parts, 2) AS BLOB)", 1),
        ("parts = CAST(substr(parts, 1, 8) || x'00' || substr(parts, 10) AS BLOB)", 1),
        ("parts = CAST(substr(parts, 1, 15) || x'00' AS BLOB)", 2),
        ("time_ms = time_ms + 1", 1),
        ("attempt = 1", 1),
        ("expires_ms = 1", 1),
        ("headers = '{}'", 1),
        (f"key = key + {1 << ID_BITS}", 1),
    ],
)
def test_a_changed_message_is_not_delivered(path: Path, change: str, first: int) -> None:
    store = Store(path)
    insert(store, [b"good", b"bad"])
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE message SET {change}")
    db.close()
    store = Store(path)
    with pytest.raises(StoreDamaged, match=f"message {first} is damaged") as raised:
        store.every(-1, 10)
    assert raised.value.last_good == ("1" if first == 2 else "none")
    store.close()


@pytest.mark.parametrize("parts", [b"", b"1234", b"123456789"])
def test_a_row_that_makes_no_sense_is_damage(path: Path, parts: bytes) -> None:
    store = Store(path)
    insert(store, [b"good"])
    with store.transaction():
        store.insert([Pack(2 << ID_BITS | 1, 1, 0, None, None, None, parts, b"")])
    with pytest.raises(StoreDamaged):
        store.every(-1, 10)
    store.close()


@pytest.mark.parametrize(
    "column", ["queue", "priority", "messages", "bytes", "last_id", "seq", "crc", "gone_from", "gone_before"]
)
def test_a_changed_lane_is_noticed(path: Path, column: str) -> None:
    store = Store(path)
    with store.transaction():
        store.save_lanes([LaneRow(1, "q", 0, 1, 2, 3, 4, 5, 6)])
    assert [lane.queue for lane in store.lanes()] == ["q"]
    store.close()
    with sqlite3.connect(path) as db:
        db.execute(f"UPDATE lane SET {column} = {column} || 1")
    db.close()
    store = Store(path)
    with pytest.raises(StoreDamaged, match="lane 1"):
        store.lanes()
    store.close()


def test_requests_are_remembered_for_a_while(store: Store) -> None:
    old, new = RequestRow("q", "old", 1, 1, 1_000), RequestRow("q", "new", 2, 5, 2_000)
    with store.transaction():
        store.remember([old], 0)
    with store.transaction():
        store.remember([new], 1_500)
    assert store.requests() == [new]
    with store.transaction():
        assert store.forget(1_500)
        assert not store.forget(2_001)
    assert store.requests() == []


def test_requests_from_before_a_clock_was_set_back_are_forgotten(store: Store) -> None:
    """Else none could be forgotten before the clock is there again."""
    hour = 3_600_000
    before, after = RequestRow("q", "before", 1, 1, 2 * hour), RequestRow("q", "after", 2, 1, hour)
    with store.transaction():
        store.remember([before], 2 * hour - 1)
        store.remember([after], hour - 1)
    assert store.requests() == [after]


def test_a_failed_transaction_leaves_nothing(store: Store) -> None:
    keys = insert(store, [b"a"])
    with pytest.raises(sqlite3.IntegrityError), store.transaction():
        store.insert(pack(keys[0] + 1, [b"b"], LIKE) + pack(keys[0], [b"again"], LIKE))
    assert [row.body for row in store.every(-1, 10)] == [b"a"]


def test_read_only_changes_nothing(path: Path) -> None:
    store = Store(path)
    insert(store, [b"a"])
    content = path.read_bytes(), Path(f"{path}-wal").read_bytes()
    copy = path.with_name("copy.db")
    copy.write_bytes(content[0])
    Path(f"{copy}-wal").write_bytes(content[1])
    store.close()
    for index in (None, b"somebody's index"):
        if index:
            Path(f"{copy}-shm").write_bytes(index)
        reader = View(copy)
        assert [row.body for row in reader.every(-1, 10)] == [b"a"]
        reader.integrity()
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader._db.execute("DELETE FROM message")
        reader.close()
        assert (copy.read_bytes(), Path(f"{copy}-wal").read_bytes()) == content
        assert not index or Path(f"{copy}-shm").read_bytes() == index
    assert sorted(each.name for each in copy.parent.iterdir()) == [
        "copy.db",
        "copy.db-shm",
        "copy.db-wal",
        "stiqueue.db",
    ]


def test_pages_that_are_neither_in_the_file_nor_in_the_log(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All but the one where SQLite has its locks, which is never written."""
    view = View(path)
    pages = view._db.execute("PRAGMA page_count").fetchone()[0]
    assert view.missing_page([]) == 0
    monkeypatch.setattr(os.path, "getsize", lambda path: (pages - 2) * PAGE_SIZE)
    assert view.missing_page([]) == pages - 1
    assert view.missing_page([pages - 1]) == pages
    assert view.missing_page([pages, pages - 1]) == 0
    monkeypatch.setattr("stiqueue.engines.sqlite.view._LOCK_PAGE", pages - 1)
    assert view.missing_page([pages]) == 0
    monkeypatch.undo()
    view.close()


def test_space_is_given_back(store: Store) -> None:
    keys = insert(store, [b"x" * 3_000] * 2_000)
    store.checkpoint(cut=True)
    peak = store.path.stat().st_size
    delete(store, keys)
    unused = store.free_pages()
    assert unused > 1_900
    store.shrink(1_000)
    assert store.free_pages() == unused - 1_000
    store.shrink(unused)
    store.checkpoint(cut=True)
    assert store.path.stat().st_size < peak / 50
    assert not Path(f"{store.path}-wal").stat().st_size


def test_a_file_in_a_directory_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/stiqueue.db: cannot be made"):
        create(tmp_path / "nowhere" / "stiqueue.db")


def test_another_connection_is_locked_out(store: Store) -> None:
    """Also by SQLite itself, should somebody remove the lock file."""
    insert(store, [b"a"])
    with pytest.raises(StoreError, match="locked"):
        Store(store.path)
