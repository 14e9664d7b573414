"""The rows of a data file: messages, lanes, requests and settings, their checksums and keys."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from stiqueue.engines.local.change import LaneName
from stiqueue.message import NO_HEADERS
from stiqueue.queue_settings import SETTINGS, QueueSettings
from stiqueue.rules.policies import Policy

ID_BITS = 44
"""A key is a lane number and, in its low bits, a message id: 17 million million ids, half a million lanes."""
MAX_ID = (1 << ID_BITS) - 1
MAX_LANES = (1 << 63 - ID_BITS) - 1
MOST_LANES = 500_000
"""The number of lanes at which new ones are refused; the rest is for changes that were accepted before."""
FLOOR_LANE = 0
"""The number of a lane without messages. Its `last_id` is at least that of every deleted lane."""
KEY_MARK = "/"
"""What is between queue and key in the name of a lane; no name of a queue has it."""
LANE_COLUMNS = 8
"""The columns of a lane up to its checksum; the others came later, at the end of the table."""
_UNIQUE = ""
"""The name under which headers keep a unique key; no header has an empty name."""
UNIQUE_START = '{"":'
"""What headers begin with that keep a unique key."""
_ODD = 0x9E3779B1
"""Spreads the upper half of a key over the checksum: any change to it changes the lower half of the product."""


class Common(NamedTuple):
    """The columns that the messages of one batch share. Times are milliseconds by the wall clock."""

    time_ms: int
    attempt: int = 0
    due_ms: int | None = None
    expires_ms: int | None = None
    headers: str | None = None


class Row(NamedTuple):
    """One message: a key, the columns of `Common`, a checksum and a body."""

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
    """The counters of one queue, priority and key."""

    no: int
    place: str
    """The queue, and if there is a key, `KEY_MARK` and the key."""
    priority: int
    messages: int = 0
    bytes: int = 0
    last_id: int = 0
    seq: int = 0
    # Messages leave one by one far more cheaply if the rest of their pack is not written anew each time. So the first
    # messages of one pack may be gone although they are in the file:
    gone_from: int = 0
    """The id of the first message of that pack."""
    gone_before: int = 0
    """The id of the first message that is left of it; 0: there is no such pack."""
    pack_end: int = 0
    """One above the id of its last message; 0: not known, for the file does not tell it."""

    @classmethod
    def of(cls, columns: Sequence[Any]) -> LaneRow | None:
        """Return the lane of a row of the table; None if its checksum is wrong."""
        *counters, crc = columns[:LANE_COLUMNS]
        lane = cls(*counters, *columns[LANE_COLUMNS:])  # a row from before version 4 has no others
        return lane if lane.crc() == crc else None

    def copy(self) -> LaneRow:
        """Return a copy; `dataclasses.replace` takes five times as long."""
        return LaneRow(*self._counters, self.gone_from, self.gone_before, self.pack_end)

    def columns(self) -> tuple[int | str, ...]:
        """Return the row of the table."""
        return *self._counters, self.crc(), self.gone_from, self.gone_before

    @property
    def _counters(self) -> tuple[int, str, int, int, int, int, int]:
        """The columns before the checksum."""
        return self.no, self.place, self.priority, self.messages, self.bytes, self.last_id, self.seq

    def left_of(self, pack: range) -> range:
        """Return the keys of those messages of a pack that are not gone; `pack` are the keys of all."""
        is_whole = not self.gone_before or pack.start & MAX_ID != self.gone_from
        return pack if is_whole else pack[self.gone_before - self.gone_from :]

    def begin(self, pack: range, left: range) -> bool:
        """Count the messages of a pack before those `left` as gone, unless others of another pack are; return whether.

        Both are ranges of keys.
        """
        start = pack.start & MAX_ID
        if self.gone_before and self.gone_from != start:
            return False
        self.gone_from, self.gone_before, self.pack_end = start, left.start & MAX_ID, start + len(pack)
        return True

    def forget_gone(self) -> None:
        """Note that no messages are in the file that are gone."""
        self.gone_from = self.gone_before = self.pack_end = 0

    @property
    def name(self) -> LaneName:
        """Which messages it has."""
        queue, _, key = self.place.partition(KEY_MARK)
        return LaneName(queue, self.priority, key)

    @property
    def queue(self) -> str:
        """The queue."""
        return self.place.partition(KEY_MARK)[0]

    def crc(self) -> int:
        gone = f"/{self.gone_from}/{self.gone_before}" if self.gone_before else ""  # as before version 4
        text = f"{self.no}/{self.place}/{self.priority}/{self.messages}/{self.bytes}/{self.last_id}/{self.seq}{gone}"
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


class SettingRow(NamedTuple):
    """The settings of a queue or a pattern."""

    pattern: str
    settings: str
    """A JSON object."""
    until_ms: int
    """When a pause ends by itself; 0: never."""
    time_ms: int
    """When they were made."""

    @classmethod
    def of(cls, policy: Policy, time_ms: int) -> SettingRow:
        """Return the row of `policy`, made at `time_ms`."""
        return cls(policy.settings.queue, json.dumps(dict(policy.settings.items())), policy.paused_until_ms, time_ms)

    def policy(self) -> Policy:
        """Return what it says."""
        # A newer version may have settings that this one does not know.
        known = {name: value for name, value in json.loads(self.settings).items() if name in SETTINGS}
        return Policy(QueueSettings(self.pattern, **known), self.until_ms)

    def crc(self) -> int:
        return zlib.crc32("/".join(map(str, self)).encode())


def shared_crc(time_ms: int, attempt: int, due_ms: int | None, expires_ms: int | None, headers: str | None) -> int:
    """Return the part of the checksum that the rows of one batch share."""
    fixed = struct.pack("<qqqq", time_ms, attempt, due_ms or 0, expires_ms or 0)
    return zlib.crc32(headers.encode(), zlib.crc32(fixed)) if headers else zlib.crc32(fixed)


def row_crc(shared: int, key: int, body: bytes) -> int:
    """Return the checksum of one row: of its key, its body and the columns that `shared_crc` covers."""
    return row_crcs(shared, key, [body])[0]


def row_crcs(shared: int, first_key: int, bodies: Sequence[bytes]) -> list[int]:
    """Return the checksums of rows with consecutive keys that share the columns that `shared_crc` covers."""
    end = first_key + len(bodies)
    if (end - 1) >> 32 == first_key >> 32:  # no step in Python per message
        start = _seed(shared, first_key)
        seeds: Sequence[int] = range(start, start + len(bodies))
    else:
        seeds = [_seed(shared, key) for key in range(first_key, end)]
    return list(map(zlib.crc32, bodies, seeds))


def _seed(shared: int, key: int) -> int:
    """Return the seed of a row's checksum; crc32 uses its lower 32 bits."""
    return shared + key + (key >> 32) * _ODD


def place_of(name: LaneName) -> str:
    """Return the queue and the key of a lane as the file has them."""
    return f"{name.queue}{KEY_MARK}{name.key}" if name.key else name.queue


def write_headers(headers: Mapping[str, str], unique_key: str = "") -> str | None:
    """Return headers and a unique key as the file has them."""
    if unique_key:
        headers = {_UNIQUE: unique_key, **headers}
    return json.dumps(headers, separators=(",", ":")) if headers else None


def read_headers(text: str | None) -> dict[str, str]:
    """Return headers from what the file has."""
    headers = dict(json.loads(text)) if text else dict(NO_HEADERS)
    headers.pop(_UNIQUE, None)
    return headers


def read_unique_key(text: str | None) -> str:
    """Return the unique key that the file has with the headers; empty: none."""
    return str(json.loads(text).get(_UNIQUE, "")) if text and text.startswith(UNIQUE_START) else ""


def is_right(row: Row) -> bool:
    """Whether the checksum of `row` is right."""
    return first_wrong([row]) is None


def first_wrong(rows: Sequence[Row]) -> Row | None:
    """Return the first row with a wrong checksum, if any; `rows` are one or more that could be a pack."""
    right = row_crcs(shared_crc(*rows[0][1:6]), rows[0].key, [row.body for row in rows])
    if right == [row.crc for row in rows]:
        return None
    return next(row for row, crc in zip(rows, right, strict=True) if row.crc != crc)
