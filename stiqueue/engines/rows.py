"""What a data file has of a message, a queue and a request: the check that proves it, and how a key is made."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from stiqueue.message import NO_HEADERS

ID_BITS = 44
"""A row's key is its lane's number and its message's id: 17 million million ids a queue, half a million lanes."""
MAX_ID = (1 << ID_BITS) - 1
MAX_LANES = (1 << 63 - ID_BITS) - 1
MOST_LANES = 500_000
"""Lanes at which a further one is refused; those beyond are for what is under way meanwhile."""
FLOOR_LANE = 0
"""The number of a lane without messages whose `last_id` is at least that of every lane that is no longer there."""
_ODD = 0x9E3779B1
"""Spreads the upper half of a key over the check, for any change of it changes the product's lower half."""


class Row(NamedTuple):
    """One message."""

    key: int
    time_ms: int
    attempt: int
    due_ms: int | None
    expires_ms: int | None
    headers: str | None
    crc: int
    body: bytes

    @property
    def id(self) -> int:
        return self.key & MAX_ID


@dataclass(slots=True)
class LaneRow:
    """The messages of one queue and priority, as the file counts them."""

    no: int
    queue: str
    priority: int
    messages: int = 0
    bytes: int = 0
    last_id: int = 0
    seq: int = 0

    def crc(self) -> int:
        text = f"{self.no}/{self.queue}/{self.priority}/{self.messages}/{self.bytes}/{self.last_id}/{self.seq}"
        return zlib.crc32(text.encode())


class RequestRow(NamedTuple):
    """One remembered request."""

    queue: str
    request_id: str
    first_id: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    time_ms: int

    def crc(self) -> int:
        return zlib.crc32("/".join(map(str, self)).encode())


def shared_crc(time_ms: int, attempt: int, due_ms: int | None, expires_ms: int | None, headers: str | None) -> int:
    """Return the part of a row's check that the rows of one batch have in common."""
    fixed = struct.pack("<qqqq", time_ms, attempt, due_ms or 0, expires_ms or 0)
    return zlib.crc32(headers.encode(), zlib.crc32(fixed)) if headers else zlib.crc32(fixed)


def row_crc(shared: int, key: int, body: bytes) -> int:
    """Return the check of one row: of its key, its body and what `shared_crc` covers."""
    return row_crcs(shared, [key], [body])[0]


def row_crcs(shared: int, keys: Iterable[int], bodies: Iterable[bytes]) -> list[int]:
    """Return the checks of several rows that have in common what `shared_crc` covers."""
    crc32 = zlib.crc32
    return [
        crc32(body, (shared + key + (key >> 32) * _ODD) & 0xFFFFFFFF) for key, body in zip(keys, bodies, strict=False)
    ]


def write_headers(headers: object) -> str | None:
    """Return headers as the file has them."""
    return json.dumps(headers, separators=(",", ":")) if headers else None


def read_headers(text: str | None) -> dict[str, str]:
    """Return headers from what the file has."""
    return dict(json.loads(text)) if text else dict(NO_HEADERS)


def is_right(row: Row) -> bool:
    """Whether the check of `row` is right."""
    return first_wrong([row]) is None


def first_wrong(rows: Iterable[Row]) -> Row | None:
    """Return the first row whose check is not right."""
    crc32, like, shared = zlib.crc32, None, 0
    for row in rows:
        if (common := row[1:6]) != like:
            like, shared = common, shared_crc(*common)
        key = row[0]
        # What `row_crc` says, without calling it for each of the million rows of a long queue.
        if crc32(row[7], (shared + key + (key >> 32) * _ODD) & 0xFFFFFFFF) != row[6]:
            return row
    return None
