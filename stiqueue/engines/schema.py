"""The tables of a data file, and how one is made."""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path

from stiqueue.engines.claim import sync_directory
from stiqueue.errors import StoreDamaged, StoreError

APPLICATION_ID = 0x53746951
"""What marks the file as ours ("StiQ"), in SQLite's application id."""
SCHEMA_VERSION = 1
PAGE_SIZE = 4096
OLDEST_SQLITE = (3, 35, 0)

SCHEMA = """
CREATE TABLE lane (
    no INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    messages INTEGER NOT NULL,  -- of this lane in message
    bytes INTEGER NOT NULL,     -- of their bodies and headers
    last_id INTEGER NOT NULL,   -- the highest id ever given in this lane
    seq INTEGER NOT NULL,       -- the last transaction that changed this row
    crc INTEGER NOT NULL,
    UNIQUE (queue, priority)
);
CREATE TABLE message (         -- consecutive messages that have much in common, up to a page of them
    key INTEGER PRIMARY KEY,    -- lane.no << 44 | id, of the first
    time_ms INTEGER NOT NULL,   -- when they were enqueued, wall clock
    attempt INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER,             -- not before, wall clock
    expires_ms INTEGER,         -- wall clock
    headers TEXT,               -- a JSON object
    parts BLOB NOT NULL,        -- the length of each body, then the check of each message, 4 bytes each
    bodies BLOB NOT NULL        -- one after the other
);
CREATE INDEX delayed ON message (due_ms) WHERE due_ms IS NOT NULL;
CREATE TABLE request (
    no INTEGER PRIMARY KEY,     -- in the order in which they came, so that old ones go from one end
    queue TEXT NOT NULL,
    request_id TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,   -- when it was confirmed, wall clock
    crc INTEGER NOT NULL
);
"""

TABLES = 5
"""With the indexes."""

_MAGIC = b"SQLite format 3\0"
_FIXED = (
    (16, struct.pack(">H6B", PAGE_SIZE, 2, 2, 0, 64, 32, 32)),
    (44, struct.pack(">4I", 4, 0, 7, 1)),
    (72, bytes(20)),
)
"""What the header of each of our files has, and where."""
_VERSION = struct.Struct(">3I")
"""Schema version, incremental vacuum, application id."""
_VERSION_AT = 60
_NEWEST_VERSION = 1_000
"""A schema version above that is damage."""


def create(path: Path) -> None:
    """Make an empty data file at `path`: it is there as a whole or not at all.

    Raises:
        StoreError: it cannot be made.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: at least 3.35 is needed")
    new = Path(f"{path}.new")
    try:
        for end in ("", "-journal", "-wal"):  # what a kill in this function has left
            Path(f"{new}{end}").unlink(missing_ok=True)
        db = sqlite3.connect(new, isolation_level=None)
        try:
            db.executescript(
                f"PRAGMA page_size = {PAGE_SIZE}; PRAGMA auto_vacuum = INCREMENTAL; BEGIN; {SCHEMA}"
                f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;"
                "PRAGMA journal_mode = WAL"
            )
        finally:
            db.close()
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.rename(path)
        sync_directory(path)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{path}: cannot be made: {error}") from error


def check_first_page(path: Path) -> None:
    """Check, before SQLite opens it, that the file at `path` is one of ours and whole at first sight.

    Raises:
        StoreError: it belongs to another program or to a newer version.
        StoreDamaged: it is damaged, or not an SQLite file at all.
    """
    try:
        with path.open("rb") as file:
            page = file.read(PAGE_SIZE)
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if not page.startswith(_MAGIC) or len(page) < _VERSION_AT + _VERSION.size:
        raise StoreDamaged(f"{path}: is not a StiQueue data file, or its first page is damaged")
    version, incremental, application = _VERSION.unpack_from(page, _VERSION_AT)
    if application != APPLICATION_ID and b"CREATE TABLE lane (" not in page:
        raise StoreError(f"{path}: is an SQLite file of another program; choose another with --data")
    if application == APPLICATION_ID and SCHEMA_VERSION < version <= _NEWEST_VERSION:
        raise StoreError(f"{path}: was written by a newer StiQueue (schema {version}); upgrade to read it")
    fixed = len(page) == PAGE_SIZE and all(page.startswith(content, at) for at, content in _FIXED)
    if not fixed or (version, incremental, application) != (SCHEMA_VERSION, 1, APPLICATION_ID):
        raise StoreDamaged(f"{path}: its header is damaged")
