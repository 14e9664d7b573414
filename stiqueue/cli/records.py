"""The file format of `stiqueue export`: one JSON object per line, the body as base64, defaults left out."""

from __future__ import annotations

import base64
import hashlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stiqueue.client.enqueue import BATCH_MESSAGES
from stiqueue.client.options import BATCH_BYTES
from stiqueue.errors import InvalidRequest
from stiqueue.limits import MAX_DELAY, MAX_TTL
from stiqueue.message import Batch, PeekedMessage, State

MOST_NUMBER = 1 << 63
"""Above every id and time."""


@dataclass(frozen=True)
class Record:
    """One message in a file."""

    queue: str
    id: int
    """The id at the time of the export."""
    enqueue_time_ms: int
    body: bytes
    priority: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    ready_time_ms: int = 0
    """The end of its delay; 0: none."""
    expire_time_ms: int = 0
    """The end of its ttl; 0: never."""
    key: str = ""
    unique_key: str = ""

    @property
    def kind(self) -> tuple[object, ...]:
        """The attributes that all messages of one request share."""
        times = self.ready_time_ms, self.expire_time_ms
        return self.queue, self.priority, self.headers, *times, self.key, self.unique_key


@dataclass
class Group:
    """Consecutive messages of a file that are enqueued in one request."""

    records: list[Record]
    lines: int
    """The lines of the file up to the end of the group."""
    bytes: int
    """The size of the group in the file."""

    def halves(self) -> tuple[Group, Group]:
        """Split the group in two, for a server that accepts only smaller requests."""
        half = len(self.records) // 2
        after = len(self.records) - half
        size = self.bytes // 2
        return (
            Group(self.records[:half], self.lines - after, size),
            Group(self.records[half:], self.lines, self.bytes - size),
        )

    def batch(self, now_ms: int) -> Batch | None:
        """Return the batch to enqueue at `now_ms`; None if the messages have expired.

        The request id is a hash of the messages, so that the server recognises a repeated group.
        """
        first = self.records[0]
        if first.expire_time_ms and first.expire_time_ms <= now_ms:
            return None
        digest = hashlib.blake2b(digest_size=16)
        for record in self.records:
            digest.update(f"{record.id} {record.enqueue_time_ms} {len(record.body)} ".encode())
            digest.update(record.body)
        return Batch(
            first.queue,
            [record.body for record in self.records],
            f"import-{digest.hexdigest()}",
            first.priority,
            # By a slow clock, more time may be left than the limit allows.
            min(MAX_DELAY, max(0, first.ready_time_ms - now_ms) / 1000),
            min(MAX_TTL, (first.expire_time_ms - now_ms) / 1000) if first.expire_time_ms else None,
            first.headers,
            (),
            first.key,
            first.unique_key,
        )


def line_of(message: PeekedMessage) -> bytes:
    """Return the line for a message."""
    row: dict[str, Any] = {"queue": message.queue, "id": message.id, "enqueue_time_ms": message.enqueue_time_ms}
    if message.priority:
        row["priority"] = message.priority
    if message.headers:
        row["headers"] = message.headers
    if message.state is State.DELAYED:
        row["ready_time_ms"] = message.ready_time_ms
    if message.expire_time_ms:
        row["expire_time_ms"] = message.expire_time_ms
    row |= {name: text for name in ("key", "unique_key") if (text := getattr(message, name))}
    row["body"] = base64.b64encode(message).decode()
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def record_of(line: bytes, number: int) -> Record:
    """Parse the message on line `number`.

    Raises:
        InvalidRequest: the line is not a message; the text names the line.
    """
    try:
        row = json.loads(line)
        record = Record(**row | {"body": base64.b64decode(row["body"], validate=True)})
        for name in ("id", "enqueue_time_ms", "priority", "ready_time_ms", "expire_time_ms"):
            if not 0 <= operator.index(getattr(record, name)) < MOST_NUMBER:
                raise ValueError(f"{name} is out of range")
        "".join((record.queue, record.key, record.unique_key, *record.headers, *record.headers.values()))
        return record
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidRequest(f"line {number:,}: not a message of `stiqueue export`: {error}") from error


def groups(lines: Iterable[bytes]) -> Iterator[Group]:
    """Group the messages of a file, in order.

    The same file gives the same groups, and so does the rest of a file after any group.

    Raises:
        InvalidRequest: a line is not a message.
    """
    group = Group([], 0, 0)
    size = number = 0
    for number, line in enumerate(lines, 1):
        record = record_of(line, number)
        full = len(group.records) >= BATCH_MESSAGES or record.unique_key or size + len(record.body) > BATCH_BYTES
        if group.records and (full or record.kind != group.records[0].kind):
            yield group
            group, size = Group([], 0, 0), 0
        group.records.append(record)
        group.lines = number
        group.bytes += len(line)
        size += len(record.body)
    if group.records:
        yield group
