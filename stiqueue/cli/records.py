"""Messages in a file of `stiqueue export`: one JSON object a line, the body as base64, defaults left out."""

from __future__ import annotations

import base64
import hashlib
import json
import operator
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stiqueue.enqueueing import BATCH_MESSAGES
from stiqueue.errors import InvalidRequest
from stiqueue.message import Batch, PeekedMessage, State
from stiqueue.options import BATCH_BYTES


@dataclass(frozen=True)
class Record:
    """One message of a file."""

    queue: str
    id: int
    """The one it had."""
    enqueue_time_ms: int
    body: bytes
    priority: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    ready_time_ms: int = 0
    """When its delay ends; 0: it has none."""
    expire_time_ms: int = 0
    """When its ttl runs out; 0: never."""

    @property
    def kind(self) -> tuple[object, ...]:
        """What messages of one request have in common."""
        return self.queue, self.priority, self.headers, self.ready_time_ms, self.expire_time_ms


@dataclass
class Group:
    """Messages that follow each other in a file and are enqueued in one request."""

    records: list[Record]
    lines: int
    """How many lines of the file there are up to its end."""
    bytes: int
    """How many bytes of the file it takes."""

    def halves(self) -> tuple[Group, Group]:
        """Return two groups, for a server that takes smaller requests; the second has the last line."""
        half = len(self.records) // 2
        after = len(self.records) - half
        size = self.bytes // 2
        return (
            Group(self.records[:half], self.lines - after, size),
            Group(self.records[half:], self.lines, self.bytes - size),
        )

    def batch(self, now_ms: int) -> Batch | None:
        """Return what enqueues it at `now_ms`; None: its messages have expired.

        Its request id is made of what the messages were, so that the same group is recognised.
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
            max(0, first.ready_time_ms - now_ms) / 1000,
            (first.expire_time_ms - now_ms) / 1000 if first.expire_time_ms else None,
            first.headers,
        )


def line_of(message: PeekedMessage) -> bytes:
    """Return the line that keeps a message."""
    row: dict[str, Any] = {"queue": message.queue, "id": message.id, "enqueue_time_ms": message.enqueue_time_ms}
    if message.priority:
        row["priority"] = message.priority
    if message.headers:
        row["headers"] = message.headers
    if message.state is State.DELAYED:
        row["ready_time_ms"] = message.ready_time_ms
    if message.expire_time_ms:
        row["expire_time_ms"] = message.expire_time_ms
    row["body"] = base64.b64encode(message).decode()
    return json.dumps(row, ensure_ascii=False).encode() + b"\n"


def record_of(line: bytes, number: int) -> Record:
    """Return the message of a line.

    Raises:
        InvalidRequest: it is none; names the line.
    """
    try:
        row = json.loads(line)
        record = Record(**row | {"body": base64.b64decode(row["body"], validate=True)})
        for name in ("id", "enqueue_time_ms", "priority", "ready_time_ms", "expire_time_ms"):
            operator.index(getattr(record, name))
        "".join((record.queue, *record.headers, *record.headers.values()))
        return record
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidRequest(f"line {number:,}: no message of `stiqueue export`: {error}") from error


def groups(lines: Iterable[bytes]) -> Iterator[Group]:
    """Group the messages of a file in order. The same file gives the same groups, and so does what follows a group.

    Raises:
        InvalidRequest: a line is no message.
    """
    group = Group([], 0, 0)
    size = number = 0
    for number, line in enumerate(lines, 1):
        record = record_of(line, number)
        full = len(group.records) >= BATCH_MESSAGES or size + len(record.body) > BATCH_BYTES
        if group.records and (full or record.kind != group.records[0].kind):
            yield group
            group, size = Group([], 0, 0), 0
        group.records.append(record)
        group.lines = number
        group.bytes += len(line)
        size += len(record.body)
    if group.records:
        yield group
