"""Packs: consecutive messages that share a row of the table, up to a page of them.

SQLite takes more than a microsecond per row, however small it is, and a page holds thirty messages of 100 bytes. Each
message has its own checksum, so damage to one costs no other.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, groupby, repeat
from typing import NamedTuple

from stiqueue.engines.sqlite.rows import ID_BITS, MAX_ID, Common, Row, row_crcs, shared_crc

PACK_BYTES = 3_900
"""The largest pack of several messages: it fills a page."""
PART_BYTES = 8
"""Bytes per message in `Pack.parts`: its length and its checksum."""


class Pack(NamedTuple):
    """A row of the table: messages with consecutive keys that share the columns of `Common`."""

    key: int
    """The key of the first message."""
    time_ms: int
    attempt: int
    due_ms: int | None
    expires_ms: int | None
    headers: str | None
    parts: bytes
    """The lengths of all bodies, then all checksums; 4 bytes each, little-endian."""
    bodies: bytes

    def rows(self) -> list[Row]:
        """Return the messages, unchecked. The last body is the whole remainder, so that its checksum covers it.

        Raises:
            ValueError: `parts` is empty or torn.
        """
        number, rest = divmod(len(self.parts), PART_BYTES)
        if rest or not number:
            raise ValueError(f"the messages at {self.key & MAX_ID} are damaged")
        numbers = struct.unpack(f"<{2 * number}I", self.parts)
        ends = [*accumulate(numbers[: number - 1]), len(self.bodies)]
        bodies = [self.bodies[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        columns = zip(
            range(self.key, self.key + number), *map(repeat, self[1:6]), numbers[number:], bodies, strict=False
        )
        return list(map(tuple.__new__, repeat(Row), columns))


def pack(first_key: int, bodies: Sequence[bytes], common: Common) -> list[Pack]:
    """Pack new messages with consecutive keys."""
    return _packed(first_key, bodies, row_crcs(shared_crc(*common), first_key, bodies), common)


def repack(rows: Iterable[Row]) -> list[Pack]:
    """Pack existing messages, which have rising keys."""
    packs: list[Pack] = []
    for (_, *common), numbered in groupby(enumerate(rows), lambda each: (each[1].key - each[0], *each[1][1:6])):
        same = [row for _, row in numbered]
        packs += _packed(same[0].key, [row.body for row in same], [row.crc for row in same], Common(*common))
    return packs


def _packed(first_key: int, bodies: Sequence[bytes], crcs: Sequence[int], common: Common) -> list[Pack]:
    room = PACK_BYTES - len(common.headers or "")
    lengths = list(map(len, bodies))
    ends = list(accumulate(map(PART_BYTES.__add__, lengths)))
    packs: list[Pack] = []
    start = before = 0
    while start < len(bodies):
        end = max(start + 1, bisect_right(ends, before + room, start))
        parts = struct.pack(f"<{2 * (end - start)}I", *lengths[start:end], *crcs[start:end])
        body = b"".join(bodies[start:end])
        packs.append(Pack(first_key + start, *common, parts, body))
        start, before = end, ends[end - 1]
    return packs


AFTER = f"key >= (SELECT ifnull(max(key), 0) FROM message WHERE key <= ?1) AND key + length(parts) / {PART_BYTES} > ?1"
"""Holds for packs with messages at or after a key."""

ONE_STEP = """
SELECT group_concat(key), group_concat(time_ms), group_concat(attempt), group_concat(ifnull(due_ms, '')),
       group_concat(ifnull(expires_ms, '')), group_concat(hex(ifnull(headers, ''))), group_concat(length(parts)),
       group_concat(length(bodies)), CAST(group_concat(parts, '') AS BLOB), CAST(group_concat(bodies, '') AS BLOB)
FROM (SELECT * FROM message WHERE {} ORDER BY key LIMIT ?)
"""
"""All packs in one step, as lists of numbers and the bodies one after the other."""

SIZES = f"""
SELECT group_concat(key), group_concat(count), group_concat(size)
FROM (SELECT key, length(parts) / {PART_BYTES} AS count, length(bodies) AS size
      FROM message WHERE {{}} ORDER BY key LIMIT ?)
"""
"""Where packs begin, how many messages each has and how many bytes, which SQLite knows without reading the bodies."""

LANES_WITH = f"""
SELECT lane.no, lane.queue, lane.priority FROM lane JOIN message
    ON message.key = (SELECT max(key) FROM message WHERE key <= lane.no << {ID_BITS} | ?1)
WHERE (lane.queue = ?2 OR lane.queue > ?3 AND lane.queue < ?4) AND lane.messages > 0 AND lane.last_id >= ?1
    AND message.key >= lane.no << {ID_BITS}
    AND message.key + length(message.parts) / {PART_BYTES} > lane.no << {ID_BITS} | ?1
"""
"""Finds the lanes of a queue (?2) that have a message with an id (?1); the places of its keys are between ?3 and ?4."""


def lists_of(found: Sequence[str | None]) -> list[list[int]]:
    """Take the answer of `SIZES` apart."""
    return [list(map(int, column.split(","))) if column else [] for column in found]


def split(found: Sequence[str | bytes]) -> list[Pack]:
    """Take the answer of `ONE_STEP` apart.

    Raises:
        ValueError: it makes no sense.
    """
    *lists, parts, bodies = found
    assert isinstance(parts, bytes)
    assert isinstance(bodies, bytes)
    keys, times, attempts, due, expires, headers, *lengths = [str(column).split(",") for column in lists]
    ends = [[0, *accumulate(map(int, each))] for each in lengths]
    if [each[-1] for each in ends] != [len(parts), len(bodies)]:
        raise ValueError(f"{len(parts)} and {len(bodies)} bytes instead of {ends[0][-1]} and {ends[1][-1]}")
    return [
        Pack(
            int(keys[at]),
            int(times[at]),
            int(attempts[at]),
            int(due[at]) if due[at] else None,
            int(expires[at]) if expires[at] else None,
            bytes.fromhex(headers[at]).decode() or None,
            parts[ends[0][at] : ends[0][at + 1]],
            bodies[ends[1][at] : ends[1][at + 1]],
        )
        for at in range(len(keys))
    ]
