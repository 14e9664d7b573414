"""What a data file has of a message, a queue and a request: the check that proves it, and how a key is made."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
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


class Common(NamedTuple):
    """What the messages of one batch have in common, as the file has it. Times are milliseconds by the wall clock."""

    time_ms: int
    attempt: int = 0
    due_ms: int | None = None
    expires_ms: int | None = None
    headers: str | None = None


class Row(NamedTuple):
    """One message: a key, the columns of `Common`, a check and a body."""

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
    return row_crcs(shared, key, [body])[0]


def row_crcs(shared: int, first_key: int, bodies: Sequence[bytes]) -> list[int]:
    """Return the checks of rows with consecutive keys that have in common what `shared_crc` covers."""
    end = first_key + len(bodies)
    if (end - 1) >> 32 == first_key >> 32:  # so that there is no step in Python for each of a million messages
        start = _seed(shared, first_key)
        seeds: Sequence[int] = range(start, start + len(bodies))
    else:
        seeds = [_seed(shared, key) for key in range(first_key, end)]
    return list(map(zlib.crc32, bodies, seeds))


def _seed(shared: int, key: int) -> int:
    """Return what the check of a row begins with, of which crc32 takes the lower 32 bits."""
    return shared + key + (key >> 32) * _ODD


def write_headers(headers: object) -> str | None:
    """Return headers as the file has them."""
    return json.dumps(headers, separators=(",", ":")) if headers else None


def read_headers(text: str | None) -> dict[str, str]:
    """Return headers from what the file has."""
    return dict(json.loads(text)) if text else dict(NO_HEADERS)


def is_right(row: Row) -> bool:
    """Whether the check of `row` is right."""
    return first_wrong([row]) is None


def first_wrong(rows: Sequence[Row]) -> Row | None:
    """Return the first row whose check is not right, of some, at least one, that could be a pack."""
    right = row_crcs(shared_crc(*rows[0][1:6]), rows[0].key, [row.body for row in rows])
    if right == [row.crc for row in rows]:
        return None
    return next(row for row, crc in zip(rows, right, strict=True) if row.crc != crc)
