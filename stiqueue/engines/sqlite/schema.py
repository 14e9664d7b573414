"""The tables of a data file, and how one is made."""

from __future__ import annotations

import os
import sqlite3
import struct
from pathlib import Path

from stiqueue.engines.sqlite.claim import sync_directory
from stiqueue.engines.sqlite.rows import UNIQUE_START
from stiqueue.errors import StoreDamaged, StoreError

APPLICATION_ID = 0x53746951
"""What marks the file as ours ("StiQ"), in SQLite's application id."""
SCHEMA_VERSION = 4
"""Since 2, a file has settings of queues. Since 3, lanes may have a key, and messages a unique key, with an index.
Since 4, the first messages of a pack may be gone."""
OLDEST_SCHEMA_VERSION = 1
"""A file of this version is brought to the newest when a server opens it."""
PAGE_SIZE = 4096
OLDEST_SQLITE = (3, 35, 0)

SETTING_TABLE = """
CREATE TABLE setting (
    no INTEGER PRIMARY KEY,
    pattern TEXT NOT NULL,      -- the name of a queue, or a pattern
    settings TEXT NOT NULL,     -- a JSON object
    until_ms INTEGER NOT NULL,  -- when a pause ends by itself, wall clock; 0: never
    time_ms INTEGER NOT NULL,   -- when they were made, wall clock
    crc INTEGER NOT NULL
);
"""
UNIQUE_KEYS = f"headers BETWEEN '{UNIQUE_START}' AND '{UNIQUE_START}~'"
"""Holds for messages with a unique key."""
UNIQUE_INDEX = f"CREATE INDEX unique_keys ON message (expires_ms, headers) WHERE {UNIQUE_KEYS}"
GONE_FROM = "gone_from INTEGER NOT NULL DEFAULT 0"
GONE_BEFORE = "gone_before INTEGER NOT NULL DEFAULT 0"

SCHEMA = f"""
CREATE TABLE lane (
    no INTEGER PRIMARY KEY,
    queue TEXT NOT NULL,        -- and, if there is a key, "/" and the key
    priority INTEGER NOT NULL,
    messages INTEGER NOT NULL,  -- of this lane in message
    bytes INTEGER NOT NULL,     -- of their bodies and headers
    last_id INTEGER NOT NULL,   -- the highest id ever given in this lane
    seq INTEGER NOT NULL,       -- the last transaction that changed this row
    crc INTEGER NOT NULL,
    {GONE_FROM},  -- the first id of a pack whose first messages are gone
    {GONE_BEFORE},  -- the first id of it that is left; 0: there is no such pack
    UNIQUE (queue, priority)
);
CREATE TABLE message (         -- consecutive messages that have much in common, up to a page of them
    key INTEGER PRIMARY KEY,    -- lane.no << 44 | id, of the first
    time_ms INTEGER NOT NULL,   -- when they were enqueued, wall clock
    attempt INTEGER NOT NULL DEFAULT 0,
    due_ms INTEGER,             -- not before, wall clock; negative: it was given back, and holds up its key
    expires_ms INTEGER,         -- wall clock
    headers TEXT,               -- a JSON object; under "" it has the unique key
    parts BLOB NOT NULL,        -- the length of each body, then the check of each message, 4 bytes each
    bodies BLOB NOT NULL        -- one after the other
);
CREATE INDEX delayed ON message (due_ms) WHERE due_ms IS NOT NULL;
{UNIQUE_INDEX};
CREATE TABLE request (
    no INTEGER PRIMARY KEY,     -- in the order in which they came, so that old ones go from one end
    queue TEXT NOT NULL,
    request_id TEXT NOT NULL,
    first_id INTEGER NOT NULL,
    count INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,   -- when it was confirmed, wall clock
    crc INTEGER NOT NULL
);
{SETTING_TABLE}
"""

TABLES = 5
"""With the indexes, of the oldest version."""

_MAGIC = b"SQLite format 3\0"
_ROOT_PAGES = {1: 7, 2: 8, 3: 9, 4: 9}
"""The number of the last page with the root of a table or an index, by schema version."""
_VERSION = struct.Struct(">3I")
"""Schema version, incremental vacuum, application id."""
_VERSION_AT = 60
_NEWEST_VERSION = 1_000
"""A schema version above this is damage."""


def create(path: Path) -> None:
    """Create an empty data file at `path`, readable by its owner only. It appears complete or not at all.

    Raises:
        StoreError: it cannot be created.
    """
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old: at least 3.35 is needed")
    new = Path(f"{path}.new")
    try:
        for end in ("", "-journal", "-wal"):  # left by a kill in this function
            Path(f"{new}{end}").unlink(missing_ok=True)
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))  # SQLite gives its log the same mode
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
    """Check that the file at `path` is a data file with a good header, before SQLite opens it.

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
    fixed = (
        (16, struct.pack(">H6B", PAGE_SIZE, 2, 2, 0, 64, 32, 32)),
        (44, struct.pack(">4I", 4, 0, _ROOT_PAGES.get(version, 0), 1)),
        (72, bytes(20)),
    )
    is_whole = len(page) == PAGE_SIZE and all(page.startswith(content, at) for at, content in fixed)
    if not is_whole or version < OLDEST_SCHEMA_VERSION or (incremental, application) != (1, APPLICATION_ID):
        raise StoreDamaged(f"{path}: its header is damaged")
