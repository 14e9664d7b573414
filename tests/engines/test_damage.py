"""A damaged data file: refused as it is, in one line that helps; accepted, it loses no message that can be read."""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import sqlite3
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from support.waiting import until

from stiqueue.engines.opening import open_engine
from stiqueue.engines.sqlite import space
from stiqueue.engines.sqlite.claim import Mark
from stiqueue.engines.sqlite.damage import checking
from stiqueue.engines.sqlite.damage.pages import PageFile
from stiqueue.engines.sqlite.damage.remains import Remains
from stiqueue.engines.sqlite.damage.salvage import check, rescued_name, salvage
from stiqueue.engines.sqlite.damage.wal import scan
from stiqueue.engines.sqlite.packs import PART_BYTES, Pack
from stiqueue.engines.sqlite.schema import PAGE_SIZE, SCHEMA_VERSION, create
from stiqueue.engines.sqlite.store import Store
from stiqueue.engines.sqlite.tables import Tables
from stiqueue.errors import StoreDamaged, StoreError, Unavailable
from stiqueue.message import Subscription
from stiqueue.rules.lease import Lease

from .damage import (
    ALL,
    DAMAGES,
    FRAME,
    IN_ALL,
    IN_FILE,
    accepted,
    body,
    content,
    cut,
    flip,
    log,
    make_killed,
    overwrite,
    refused,
)
from .desk import ack, as_killed, drain, enqueue, opened, take

NOBODY = 65534


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a server that was killed."""
    return make_killed(tmp_path_factory.mktemp("killed") / "made")


@pytest.fixture
def path(killed: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return as_killed(killed, tmp_path / "stiqueue.db")


@pytest.mark.slow
@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_file_is_refused_as_it_is_and_accepted_with_what_can_be_read(path: Path, name: str) -> None:
    damage, last_good, enough = DAMAGES[name]
    damage(path)
    text = refused(path)
    said = re.search(r"\(last good id: ([^)]*)\)", text)
    assert said, text
    assert re.match(last_good, said[1]), text

    before = content(path)
    report = check(path)
    assert content(path) == before
    assert said[0] in report.problems[0]

    out = path.with_name("out.db")
    saved = salvage(path, out)
    assert {file: data for file, data in content(path).items() if file != "out.db"} == before
    assert saved.saved == report.readable

    damaged = [content(path).get(f"stiqueue.db{end}") for end in ("", "-wal")]
    got = accepted(path)
    assert enough(got), sorted(ALL - got)
    assert accepted(out) == got
    assert len(got) == saved.saved
    lost = len(ALL) - len(got)
    assert saved.loss == report.loss
    assert report.loss.messages == lost if report.loss.is_exact else report.loss.messages <= lost, report.lines
    assert report.lines[-1].endswith(f"{len(got)} messages can be read, {report.loss.words}")
    if said[1][0].isdigit():
        assert got >= set(range(1, int(said[1].split()[0]) + 1)), "what is called good cannot be read"
    aside = [next(iter(path.parent.glob(f"stiqueue.db.damaged-*[0-9]{end}")), None) for end in ("", "-wal")]
    assert [each and each.read_bytes() for each in aside] == damaged


@pytest.mark.parametrize("name", ["half of the file", "a page of messages is zero", "a bit of a message"])
def test_damage_in_a_large_file_is_found_when_it_is_read(
    path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are not all checked at the start; whatever is delivered is as it was, and nothing is called empty."""
    monkeypatch.setattr(checking, "WHOLE_CHECK_BYTES", 0)
    DAMAGES[name][0](path)
    if name == "half of the file":
        refused(path)  # this costs nothing to see
        return
    failures: list[Exception] = []
    engine = open_engine(path)
    engine.on_failure = failures.append  # before the start, which may read that far by itself
    with contextlib.ExitStack() as stack:
        stack.callback(engine.close_now)
        engine.start_now()
        got: list[Lease] = []
        with contextlib.suppress(Unavailable):  # when it has read that far before there is a consumer
            consumer = engine.subscribe(Subscription("default", prefetch=1_000))
            while (leases := consumer.take_waiting()) is not None:
                got += leases
        assert [lease.body for lease in got] == list(map(body, range(1, len(got) + 1)))
        with pytest.raises(Unavailable, match="--accept-loss"):
            enqueue(engine, b"more")
    assert DAMAGES[name][2](accepted(path)), "in the same process too"
    assert [type(failure) for failure in failures] == [StoreDamaged]
    assert re.search(r"last good id: 1\d\d of default\)\. See .* --accept-loss", str(failures[0]))


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE account (id, name)")
    db.close()


def foreign_in_wal_mode(path: Path) -> None:
    program = "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1]); db.execute('PRAGMA journal_mode = WAL');"
    program += "db.execute('CREATE TABLE account (id)'); db.commit(); os._exit(0)"
    subprocess.run([sys.executable, "-c", program, str(path)], check=True, timeout=30)


def newer(path: Path) -> None:
    create(path)
    overwrite(path, 60, struct.pack(">I", SCHEMA_VERSION + 1))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (foreign, "is an SQLite file of another program; choose another with --data"),
        (foreign_in_wal_mode, "is an SQLite file of another program; choose another with --data"),
        (newer, rf"was written by a newer StiQueue \(schema {SCHEMA_VERSION + 1}\); upgrade to read it"),
        (Path.mkdir, "is not a file"),
    ],
)
def test_what_is_not_ours_is_refused_unopened(
    tmp_path: Path, make: Callable[[Path], None], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is at byte 60 and the application's id at byte 68 of the header, the highest byte first."""
    path = tmp_path / "stiqueue.db"
    make(path)

    def opens(*arguments: object) -> None:
        raise AssertionError("SQLite has opened it")

    monkeypatch.setattr(Tables, "__init__", opens)
    assert re.search(text, refused(path, StoreError))
    with pytest.raises(StoreError, match=text), opened(path, accept_loss=True):
        pass


def test_the_versions_are_where_sqlite_has_them(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    create(path)
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 7")
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    assert "schema 7" in refused(path, StoreError)


def test_another_file_is_never_taken_for_an_empty_queue(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    path.write_bytes(b"a photo, perhaps" * 1_000)
    assert "is not a StiQueue data file" in refused(path)
    before = content(path)
    with pytest.raises(StoreError, match="nothing in it is StiQueue's"), opened(path, accept_loss=True):
        pass
    assert content(path) == before


def test_a_large_file_that_is_not_ours_is_refused_soon(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    path.write_bytes(random.Random(1).randbytes(8 << 20))
    refused(path)  # before the test's time is over


def test_an_empty_file_is_a_new_one(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    path.touch()
    with opened(path) as engine:
        enqueue(engine, body(1))
    assert accepted(path) == {1}


@pytest.mark.parametrize("end", ["", "-wal", "-mark", "-lock"])
@pytest.mark.parametrize("mode", [0o000, 0o444])
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_without_permission(killed: Path, end: str, mode: int) -> None:
    """Told in a line that names the file. The superuser may do everything, so a child becomes nobody."""
    with tempfile.TemporaryDirectory() as directory:
        assert_refused_without_permission(as_killed(killed, Path(directory) / "stiqueue.db"), end, mode)


def assert_refused_without_permission(path: Path, end: str, mode: int) -> None:
    part = Path(f"{path}{end}")
    part.touch()
    part.chmod(mode)
    if os.geteuid() == 0:
        for each in [path.parent, *path.parent.iterdir()]:
            os.chown(each, NOBODY, NOBODY)
    before = content(path) if os.geteuid() == 0 else {}
    child = os.fork()
    if not child:
        try:
            if os.geteuid() == 0:
                os.setuid(NOBODY)
            with opened(path):
                os._exit(0)
        except StoreError as error:
            os._exit(1 if str(part) in str(error) and "\n" not in str(error) else 2)
        except BaseException:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert not before or before == content(path)


# -- a torn end ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 100, 2_000, FRAME])
def test_18_a_torn_write_is_no_damage(path: Path, k: int) -> None:
    """The last transaction was not confirmed yet, so its number is not in the mark."""
    seq = Mark.of(path)
    mark = Mark(path)
    mark.write(seq - 1)
    mark.close()
    cut(log(path), log(path).stat().st_size - k)
    with opened(path) as engine:
        assert [lease.entry.id for lease in drain(engine)] == list(range(1, 591))


@pytest.mark.parametrize("k", [1, 100, 2_000, FRAME])
def test_18_a_confirmed_transaction_that_is_cut_is_damage(path: Path, k: int) -> None:
    cut(log(path), log(path).stat().st_size - k)
    assert "ends with transaction" in refused(path)


def test_18_two_transactions_that_are_cut_are_damage(path: Path) -> None:
    """Also when the mark knows of the last of them only that it was not confirmed."""
    seq = Mark.of(path)
    mark = Mark(path)
    mark.write(seq - 1)
    mark.close()
    frames = scan(log(path)).frames
    cut(log(path), 32 + FRAME * frames * 3 // 4)
    assert "ends with transaction" in refused(path)


# -- going on with what can be read ----------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [100, 290], ids=["some", "of-whole-pages"])
@pytest.mark.parametrize("end", ["killed", "closed"])
def test_acked_messages_do_not_come_back_by_accepting_a_loss(path: Path, number: int, end: str) -> None:
    """Their bytes are still there, in pages that are not used any more."""
    with opened(path) as engine:
        ack(engine, take(engine, number))
        as_killed(path, path.with_name("killed.db"))
    damaged = path if end == "closed" else path.with_name("killed.db")
    flip(damaged, damaged.read_bytes().index(body(395)) + 20)  # of which the log may have a later copy
    assert accepted(damaged) | {395} == ALL - set(range(1, number + 1))


def test_a_salvaged_copy_is_never_taken_for_the_file(path: Path) -> None:
    """Only the name that a start with accept_loss itself gives is; nobody else can write there."""
    salvage(path, path.with_name("stiqueue.db-salvaged"))
    with pytest.raises(StoreError, match="choose another name"):
        salvage(path, rescued_name(path))
    with opened(path) as engine:
        drain(engine)
    with opened(path) as engine:
        assert drain(engine) == []


def test_a_torn_header_of_a_log_that_is_in_the_file_is_no_damage(path: Path) -> None:
    """A new use of the log begins with another header; the old content is in the file by then."""
    with opened(path) as engine:
        enqueue(engine, body(IN_ALL + 1))
        journal = engine._log.journal
        until(lambda: not journal._space.untidy)
        copy = as_killed(path, path.with_name("copy.db"))
    assert log(copy).stat().st_size
    overwrite(log(copy), 16, b"torn")
    assert accepted(copy) == ALL | {IN_ALL + 1}
    assert not list(copy.parent.glob("copy.db.damaged*"))


def test_a_torn_header_of_a_log_is_no_damage_after_the_file_shrank(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log still has pages that were given back to the disk, which no file can have."""
    path = tmp_path / "stiqueue.db"
    monkeypatch.setattr(space, "KEPT_PAGES", 100_000)
    with opened(path) as engine:
        enqueue(engine, *(b"x" * 3_000 for _ in range(1_600)), b"last")
        ack(engine, take(engine, 1_600))
    store = Store(path)
    for _ in range(10):
        store.shrink(100)
    store.checkpoint()
    copy = as_killed(path, tmp_path / "copy.db")
    store.close()
    assert max(scan(log(copy)).pages) > copy.stat().st_size // PAGE_SIZE
    overwrite(log(copy), 16, b"torn")
    with opened(copy) as engine:
        assert [lease.body for lease in drain(engine)] == [b"last"]


def test_17_after_a_failed_sync_the_file_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What of the log is on the disk nobody knows; so it is not moved into the file, not even at the end."""

    def fails(self: Store) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    failures: list[Exception] = []
    with opened(path) as engine:
        engine.on_failure = failures.append
        enqueue(engine, body(IN_ALL + 1))
        enqueue(engine, body(IN_ALL + 2))
        before = content(path)
        monkeypatch.setattr(Store, "transaction", fails)
        with pytest.raises(Unavailable):
            enqueue(engine, b"more")
        with pytest.raises(Unavailable):
            enqueue(engine, b"and more")
    gc.collect()
    after = content(path)
    assert [after[f"stiqueue.db{end}"] for end in ("", "-wal")] == [before[f"stiqueue.db{end}"] for end in ("", "-wal")]
    assert [str(failure) for failure in failures] == [
        f"{path}: cannot be written: disk I/O error; stopping, for nothing is safe now"
    ]


ROW_HEAD = 34
"""Bytes of a row before its lengths and checks, at most."""


@pytest.mark.slow
def test_salvage_finds_every_message_that_was_not_hit(tmp_path: Path) -> None:
    """Some bytes anywhere, also of what tells where the rows of a page are: only messages that were hit themselves go.

    Of a row that holds several, a hit of what comes before the bodies may cost all.
    """
    seed = os.environ.get("FAULT_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FAULT_SEED={seed}")
    chance = random.Random(seed)
    path = tmp_path / "stiqueue.db"
    with opened(path) as engine:
        enqueue(engine, *map(body, range(1, IN_FILE + 1)))
    with opened(path) as engine:
        ack(engine, take(engine, 20))
    data = path.read_bytes()

    def found() -> set[int]:
        return {row.id for row in Remains(path).messages()}

    assert found() == set(range(21, IN_FILE + 1))
    whole = PageFile(data, b"")
    records = [record for _, record in whole.records() if record is not None]
    assert len(records) == len(list(whole.records()))
    assert not whole.incomplete
    places: dict[int, list[range]] = {}
    for key, columns in records:
        if key is not None and isinstance(columns[-1], bytes):
            rows = Pack(key, *columns[1:]).rows()  # type: ignore[arg-type]
            start = data.index(columns[-1])
            head = range(start - ROW_HEAD - PART_BYTES * len(rows), start)
            for row in rows:
                place = range(start, start + len(row.body))
                if data.count(row.body) == 1:
                    places[row.id] = [head, place]
                start = place.stop
    assert len(places) > IN_FILE // 2
    for _ in range(30):
        size = chance.choice([1, 1, 16, 64])
        at = chance.randrange(len(data) - size)
        path.write_bytes(
            data[:at] + bytes(byte ^ chance.randrange(1, 256) for byte in data[at : at + size]) + data[at + size :]
        )
        hit = {n for n, parts in places.items() if any(part.start < at + size and at < part.stop for part in parts)}
        assert set(places) - hit <= found(), f"{size} bytes at {at}"


def test_a_long_message_whose_chain_is_a_ring_is_given_up() -> None:
    """Its length is garbage as well: it must not be looked for for ever."""
    ring = struct.pack(">I", 2) + b"x" * (PAGE_SIZE - 4)
    with pytest.raises(ValueError, match="chain"):
        PageFile(bytes(PAGE_SIZE) + ring, b"")._overflow(2, 1 << 60)
