"""Translates between StiQueue and NATS messages: the body unchanged, all else in headers, none for a plain message."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple

from stiqueue.limits import headers_size
from stiqueue.message import NO_HEADERS, Batch
from stiqueue.rules.entry import Entry, Properties

OURS = "Stiqueue"
"""The header for everything that NATS has no field for, as JSON: h(eaders), t(ime enqueued), x (expiry), both in ms."""

REMEMBERED_SECONDS = 600
"""How long a request id is remembered: twice the promise, so that it never expires while a client asks for it."""
MESSAGE_ID = "Nats-Msg-Id"
TTL = "Nats-TTL"

_PLAIN_ID = re.compile(r"[!-9;-~]{1,128}", re.ASCII)


class Origin(NamedTuple):
    """The parts of a delivered message's reply subject."""

    deliveries: int
    sequence: int
    time_ms: int


def origin(reply: str) -> Origin:
    """Parse an acknowledgement subject: ``$JS.ACK[.domain.account].stream.consumer.deliveries.seq.cseq.time.left``."""
    parts = reply.split(".")
    at = 4 if len(parts) == 9 else 6
    return Origin(int(parts[at]), int(parts[at + 1]), int(parts[at + 3]) // 1_000_000)


def message_id(request_id: str) -> str:
    """Return the NATS message id for a request id, which may be any text."""
    if _PLAIN_ID.fullmatch(request_id):
        return f"r:{request_id}"
    return f"h:{hashlib.sha256(request_id.encode()).hexdigest()}"


def record_headers(request_id: str) -> dict[str, str]:
    """Return the headers of the record of a request id."""
    return {MESSAGE_ID: message_id(request_id), TTL: f"{REMEMBERED_SECONDS}s"}


def batch_headers(batch: Batch, wall: float, original_time_ms: int | None = None) -> dict[str, str]:
    """Return the headers that all messages of a batch share.

    Args:
        batch: the batch.
        wall: the current time, in seconds since 1970.
        original_time_ms: the time when the message was first enqueued, if not now.
    """
    ours: dict[str, Any] = {}
    if batch.headers:
        ours["h"] = dict(batch.headers)
    if original_time_ms is not None:
        ours["t"] = original_time_ms
    elif batch.delay:
        ours["t"] = int(wall * 1000)
    headers: dict[str, str] = {}
    if batch.ttl is not None:
        ours["x"] = int((wall + batch.ttl) * 1000)
        headers[TTL] = _whole_seconds(batch.ttl)
    if ours:
        headers[OURS] = json.dumps(ours, separators=(",", ":"))
    return headers


def schedule_headers(batch: Batch, target: str, wall: float) -> dict[str, str]:
    """Return the headers that make a message appear on `target` when the delay of `batch` is over."""
    due = datetime.fromtimestamp(wall + batch.delay, timezone.utc).isoformat(timespec="microseconds")
    left = None if batch.ttl is None else batch.ttl - batch.delay
    return {
        "Nats-Schedule": "@at " + due.replace("+00:00", "Z"),
        "Nats-Schedule-Target": target,
        "Nats-Schedule-TTL": "never" if left is None else _whole_seconds(left),
    }


def _whole_seconds(seconds: float) -> str:
    """Format a ttl for the cluster: rounded up, at least a second. `open_message` has the exact end."""
    return f"{max(1, math.ceil(seconds))}s"


class Opened(NamedTuple):
    """A stored NATS message, and when it expires."""

    entry: Entry
    expires_ms: int | None


def open_message(sequence: int, attempt: int, stored_ms: int, body: bytes, headers: Mapping[str, str] | None) -> Opened:
    """Translate a stored message to an entry that was delivered `attempt` times."""
    text = headers.get(OURS) if headers else None
    ours = _read_ours(text) if text else None
    if not ours:
        return Opened(Entry(sequence, body, attempt, Properties(stored_ms)), None)
    own: Mapping[str, str] = ours.get("h") or NO_HEADERS
    expires: int | None = ours.get("x")
    properties = Properties(ours.get("t", stored_ms), 0, own, headers_size(own) if own else 0, None, expires)
    return Opened(Entry(sequence, body, attempt, properties), expires)


def _read_ours(text: str) -> dict[str, Any] | None:
    """Return what our header says; None if another program wrote it: then it says nothing."""
    try:
        ours = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(ours, dict):
        return None
    own, times = ours.get("h") or {}, (ours.get("t", 0), ours.get("x", 0))
    is_right = isinstance(own, dict) and all(isinstance(each, str) for each in own.values())
    return ours if is_right and all(type(each) is int for each in times) else None


def due_ms(headers: Mapping[str, str]) -> int:
    """Return the due time of a delayed message, in ms since 1970."""
    return time_ms(headers.get("Nats-Schedule", "@at 1970-01-01T00:00:00Z")[4:])


def time_ms(text: str) -> int:
    """Parse a timestamp of the cluster; return ms since 1970."""
    seconds, _, fraction = text.rstrip("Z").partition(".")
    whole = datetime.fromisoformat(seconds).replace(tzinfo=timezone.utc).timestamp()
    return int(whole) * 1000 + int((fraction or "0")[:3].ljust(3, "0"))
