"""Short names for what tests do with a data file."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.opening import open_engine
from stiqueue.message import Batch, Receipt, Settlement, Subscription
from stiqueue.rules.lease import Lease

PATIENCE = 60.0
"""Seconds that a write may take on a busy machine."""
PARTS = ("", "-wal", "-mark")
"""What of a data file survives a kill."""


@contextmanager
def opened(path: Path, **options: Any) -> Iterator[LocalEngine]:
    """Open an engine on a file, for a while."""
    engine = open_engine(path, **options)
    engine.start_now()
    try:
        yield engine
    finally:
        engine.close_now()


def enqueue(engine: LocalEngine, *bodies: bytes, queue: str = "default", **more: Any) -> Receipt:
    """Enqueue and wait until it is confirmed."""
    answer = engine.submit(Batch(queue, bodies, **more))
    return answer if isinstance(answer, Receipt) else answer.result(PATIENCE)


def take(engine: LocalEngine, number: int, queue: str = "default") -> list[Lease]:
    """Lease so many messages, which a consumer keeps."""
    consumer = engine.subscribe(Subscription(queue, prefetch=number))
    leases: list[Lease] = []
    while len(leases) < number:
        leases += consumer.take_waiting() or []
    return leases


def ack(engine: LocalEngine, leases: Sequence[Lease]) -> list[str]:
    """Acknowledge and wait until it is confirmed; return the stale leases."""
    answer = engine.settle_now(Settlement([lease.lease_id for lease in leases]))
    return answer if isinstance(answer, list) else answer.result(PATIENCE)


def drain(engine: LocalEngine, queue: str = "default") -> list[Lease]:
    """Take and acknowledge all that is ready; return it in order."""
    consumer = engine.subscribe(Subscription(queue, prefetch=1_000, wait=0.0))
    drained: list[Lease] = []
    while (leases := consumer.take_waiting()) is not None:
        assert ack(engine, leases) == []
        drained += leases
    return drained


def bodies(leases: Sequence[Lease]) -> list[bytes]:
    """Return the bodies of deliveries."""
    return [lease.body for lease in leases]


def as_killed(path: Path, to: Path) -> Path:
    """Copy a data file that is in use: what is there when its process is killed now."""
    for part in PARTS:
        if Path(f"{path}{part}").exists():
            shutil.copyfile(f"{path}{part}", f"{to}{part}")
    return to


def as_of_version(path: Path, version: int) -> None:
    """Make a data file without keys, unique keys and settings what an older version would have made."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        for column in ("gone_from", "gone_before"):
            db.execute(f"ALTER TABLE lane DROP COLUMN {column}")
        if version < 3:
            db.execute("DROP INDEX unique_keys")
        if version < 2:
            assert db.execute("SELECT count(*) FROM setting").fetchone() == (0,)
            db.execute("DROP TABLE setting")
        db.execute(f"PRAGMA user_version = {version}")
