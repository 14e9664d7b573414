"""A data file, what can be done to it, and what must become of it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from stiqueue.engines.sqlite.schema import PAGE_SIZE
from stiqueue.errors import StoreDamaged, StoreError

from .desk import as_killed, drain, enqueue, opened

IN_FILE, IN_ALL = 400, 600
"""The messages that are in the file itself; beginning behind them, those that are in its log."""
FRAME = PAGE_SIZE + 24


def body(number: int) -> bytes:
    return b"%d:" % number + b"x" * 100


def make_killed(directory: Path) -> Path:
    """Make the file of a server that was killed in a new directory: messages in the file, and others in its log."""
    directory.mkdir()
    path = directory / "stiqueue.db"
    with opened(path) as engine:
        enqueue(engine, *map(body, range(1, IN_FILE + 1)))
    with opened(path) as engine:
        for first in range(IN_FILE + 1, IN_ALL + 1, 10):
            enqueue(engine, *map(body, range(first, first + 10)))
        return as_killed(path, directory / "killed.db")


def content(path: Path) -> dict[str, bytes]:
    """Everything around a data file, but for the lock."""
    return {
        each.name: each.read_bytes()
        for each in path.parent.iterdir()
        if each.is_file() and not each.name.endswith("-lock")
    }


def refused(path: Path, kind: type[StoreError] = StoreDamaged) -> str:
    """Open the file, which is refused with one line and not changed; return the line."""
    before = content(path)
    with pytest.raises(StoreError) as raised, opened(path):
        pass
    assert content(path) == before
    assert raised.type is kind, raised.value
    text = str(raised.value)
    assert "\n" not in text
    assert str(path) in text
    if kind is StoreDamaged:
        for part in ("last good id: ", f"stiqueue check {path}", f"stiqueue salvage {path} OUT", "--accept-loss"):
            assert part in text
    return text


def accepted(path: Path) -> set[int]:
    """Open the file all the same; return which messages come, each as it was and at its place."""
    with opened(path, accept_loss=True) as engine:
        leases = drain(engine)
    numbers = [int(lease.body.split(b":")[0]) for lease in leases]
    assert [lease.body for lease in leases] == list(map(body, numbers))
    assert [lease.entry.id for lease in leases] == numbers == sorted(set(numbers))
    return set(numbers)


def cut(path: Path, size: int) -> None:
    os.truncate(path, size)


def overwrite(path: Path, at: int, what: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        file.write(what)


def page_of(path: Path, number: int) -> int:
    """Return where the page begins that has a message."""
    return path.read_bytes().index(body(number)) // PAGE_SIZE * PAGE_SIZE


def log(path: Path) -> Path:
    return Path(f"{path}-wal")


def old_backup(path: Path) -> None:
    with opened(path) as engine:
        old = as_killed(path, path.with_name("old"))
        enqueue(engine, b"later")
        enqueue(engine, b"later")
    for end in ("", "-wal"):
        shutil.move(f"{old}{end}", f"{path}{end}")
    Path(f"{old}-mark").unlink()


def flip(path: Path, at: int) -> None:
    overwrite(path, at, bytes([path.read_bytes()[at] ^ 4]))


def no_counters(path: Path) -> None:
    with opened(path):
        pass
    overwrite(path, path.read_bytes().index(b"default", 2 * PAGE_SIZE), b"D")


ALL = set(range(1, IN_ALL + 1))
FILE = set(range(1, IN_FILE + 1))
FIRST = set(range(IN_FILE + 1, IN_FILE + 11))
"""The first transaction after a start goes into the file at once."""

DAMAGES: dict[str, tuple[Callable[[Path], None], str, Callable[[set[int]], bool]]] = {
    # what is done, what is said of the last good message, and whether enough was saved
    "half of the file": (lambda p: cut(p, p.stat().st_size // 2), r"\d+ of default", lambda got: len(got) > 200),
    "the file cut to 0 bytes": (
        lambda p: cut(p, 0),
        r"unknown, \d+ messages can be read, \d+ are lost$",
        lambda got: got >= ALL - FILE - FIRST,
    ),
    "the file is gone": (
        lambda p: p.unlink(),
        r"unknown, \d+ messages can be read, \d+ are lost$",
        lambda got: got >= ALL - FILE - FIRST,
    ),
    "a page of messages is zero": (
        lambda p: overwrite(p, page_of(p, 200), bytes(PAGE_SIZE)),
        r"1\d\d of default",
        lambda got: len(got) > IN_ALL - 40,
    ),
    "a bit of a message": (
        lambda p: flip(p, p.read_bytes().index(body(200)) + 20),
        "199 of default",
        lambda got: got == ALL - {200},
    ),
    "the first page is zero": (
        lambda p: overwrite(p, 0, bytes(PAGE_SIZE)),
        "600 of default",
        lambda got: got == ALL,
    ),
    "the header": (lambda p: flip(p, 18), "600 of default", lambda got: got == ALL),
    "the schema version": (lambda p: flip(p, 60), "600 of default", lambda got: got == ALL),
    "the application id": (lambda p: flip(p, 68), "600 of default", lambda got: got == ALL),
    "half of the log": (
        lambda p: cut(log(p), log(p).stat().st_size // 2),
        r"[45]\d0 of default",
        lambda got: got >= FILE,
    ),
    "the log is gone": (lambda p: log(p).unlink(), "410 of default", lambda got: got == FILE | FIRST),
    "the log cut to 0 bytes": (
        lambda p: cut(log(p), 0),
        "410 of default",
        lambda got: got == FILE | FIRST,
    ),
    "the header of the log": (lambda p: flip(log(p), 16), "410 of default", lambda got: got == ALL),
    "a bit in the middle of the log": (
        lambda p: flip(log(p), log(p).read_bytes().index(body(510)) + 20),
        "500 of default",
        lambda got: got >= ALL - {510},
    ),
    "the last frame of the log": (
        lambda p: cut(log(p), log(p).stat().st_size - 1),
        "590 of default",
        lambda got: got >= ALL - set(range(591, 601)),
    ),
    "garbage": (lambda p: p.write_bytes(b"garbage" * 5_000), "unknown", lambda got: got >= ALL - FILE - FIRST),
    "an old backup": (old_backup, "600 of default", lambda got: got == ALL),
    "the counters": (
        no_counters,
        "unknown, 600 messages can be read, how many are lost is not known: the counters of some queues cannot be read",
        lambda got: got == ALL,
    ),
}
