"""What a request may ask for: every range of the protocol, checked once, before anything is changed.

The numbers are those of the comments in ``queue.proto``. Each check raises `InvalidRequest` naming the field and the
limit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from stiqueue.errors import InvalidRequest
from stiqueue.message import Batch, Outcome, PeekQuery, Settlement, Subscription

DEFAULT_QUEUE = "default"
MAX_NAME = 128
MAX_BATCH = 100_000
MAX_REQUEST_ID_BYTES = 128
MAX_LEASE_ID_BYTES = 128
MAX_CONSUMER_BYTES = 128
MAX_REASON_BYTES = 1024
MAX_HEADERS = 64
MAX_HEADERS_BYTES = 8 << 10
MAX_PRIORITY = 255
MAX_PREFETCH = 10_000
DEFAULT_PREFETCH_BYTES = 16 << 20
MAX_PREFETCH_BYTES = 1 << 30
MAX_ATOMIC_ACKS = 10_000
MAX_NAMED_QUEUES = 10_000
DAY = 86_400.0
MAX_DELAY = 366 * DAY
MAX_TTL = 3_660 * DAY
MAX_ACK_TIMEOUT = 7 * DAY
MESSAGE_ROOM = 16 << 10
"""How much smaller than the largest request the largest message is: room for names, headers of dead letters and
framing, so that whatever could be enqueued can be delivered."""

TRACE_HEADERS = frozenset(("traceparent", "tracestate"))
"""Where W3C's trace context travels. They do not count in the size of a message, for they have room in the above: a
program that is traced can send what it could send before."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)


@lru_cache(1_000)
def queue_name(name: str) -> str:
    """Return the queue that `name` means."""
    if not name:
        return DEFAULT_QUEUE
    if not _NAME.fullmatch(name):
        shown = name if len(name) <= MAX_NAME else name[:MAX_NAME] + "..."
        raise InvalidRequest(f"queue: {shown!r} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -", "BAD_QUEUE_NAME")
    return name


def headers_size(headers: Mapping[str, str]) -> int:
    """Return the UTF-8 bytes of all keys and values."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in headers.items())


def check_batch(batch: Batch, max_message_bytes: int) -> None:
    """Check what one `Enq` asks for."""
    if not batch.bodies:
        raise InvalidRequest("bodies: at least one message is needed", "EMPTY_BATCH")
    _at_most("bodies", len(batch.bodies), MAX_BATCH, "TOO_MANY_MESSAGES")
    # What is as it is by default needs no look: this is on the way of every single message, twice.
    if batch.request_id:
        _text("request_id", batch.request_id, MAX_REQUEST_ID_BYTES, "BAD_REQUEST_ID")
    if batch.priority != 0:
        if not isinstance(batch.priority, int):
            raise InvalidRequest(f"priority: {batch.priority!r} is no integer", "BAD_PRIORITY")
        _between("priority", batch.priority, 0, MAX_PRIORITY, "BAD_PRIORITY")
    if batch.delay != 0:
        _duration("delay", batch.delay, MAX_DELAY)
    if batch.ttl is not None:
        _duration("ttl", batch.ttl, MAX_TTL, positive=True)
    used = check_headers(batch.headers)
    if used:
        used -= headers_size({name: batch.headers[name] for name in TRACE_HEADERS if name in batch.headers})
    longest = max(map(len, batch.bodies)) + used
    if longest > max_message_bytes:
        raise InvalidRequest(
            f"bodies: a message of {longest:,} bytes with its headers is above the limit of {max_message_bytes:,}",
            "MESSAGE_TOO_LARGE",
        )
    if batch.ack_lease_ids:
        _at_most("ack_lease_ids", len(batch.ack_lease_ids), MAX_ATOMIC_ACKS, "TOO_MANY_MESSAGES")
        _lease_ids("ack_lease_ids", batch.ack_lease_ids)


def check_subscription(asked: Subscription) -> None:
    """Check what one `Deq` asks for."""
    _between("prefetch", asked.prefetch, 1, MAX_PREFETCH, "BAD_LIMIT")
    _between("prefetch_bytes", asked.prefetch_bytes, 1, MAX_PREFETCH_BYTES, "BAD_LIMIT")
    _between("max_messages", asked.max_messages, 0, 2**63 - 1, "BAD_LIMIT")
    if asked.wait is not None:
        _duration("wait", asked.wait, MAX_DELAY)
    if asked.ack_timeout is not None:
        _duration("ack_timeout", asked.ack_timeout, MAX_ACK_TIMEOUT)
    _text("consumer", asked.consumer, MAX_CONSUMER_BYTES, "BAD_CONSUMER")


def check_settlement(settlement: Settlement) -> None:
    """Check what one `Ack` asks for."""
    if not settlement.lease_ids:
        raise InvalidRequest("lease_ids: at least one is needed", "EMPTY_BATCH")
    _at_most("lease_ids", len(settlement.lease_ids), MAX_BATCH, "TOO_MANY_MESSAGES")
    _lease_ids("lease_ids", settlement.lease_ids)
    if settlement.outcome is Outcome.EXTEND:
        _duration("delay", settlement.delay, MAX_ACK_TIMEOUT, positive=True)
    elif settlement.outcome is Outcome.REQUEUE:
        _duration("delay", settlement.delay, MAX_DELAY)
    elif settlement.delay:
        raise InvalidRequest("delay: only REQUEUE and EXTEND have one", "BAD_DURATION")
    if settlement.reason and settlement.outcome is not Outcome.DEAD_LETTER:
        raise InvalidRequest("reason: only DEAD_LETTER has one", "BAD_REASON")
    _text("reason", settlement.reason, MAX_REASON_BYTES, "BAD_REASON")


def check_exchange(settlement: Settlement) -> None:
    """Check what one `Ack` asks for beyond `check_settlement` when it takes the next messages as well."""
    if settlement.outcome is not Outcome.ACK or len(settlement.lease_ids) > 1 or settlement.close_stream:
        raise InvalidRequest("take_next: it goes with the ACK of a single lease whose stream goes on", "BAD_TAKE_NEXT")


def check_peek(query: PeekQuery) -> None:
    """Check what one `Peek` asks for."""
    _between("limit", query.limit, 0, 2**63 - 1, "BAD_LIMIT")
    _between("after_id", query.after_id, 0, 2**64 - 1, "BAD_LIMIT")


def check_queues(names: Sequence[str]) -> None:
    """Check how many queues one `Cnt` names."""
    _at_most("queues", len(names), MAX_NAMED_QUEUES, "TOO_MANY_QUEUES")


def check_headers(headers: Mapping[str, str]) -> int:
    """Check the headers of one message; return their bytes.

    Raises:
        InvalidRequest: there are too many or too long ones, or one is not text.
    """
    if not headers:
        return 0
    _at_most("headers", len(headers), MAX_HEADERS, "BAD_HEADERS")
    if "" in headers:
        raise InvalidRequest("headers: a key has at least one character", "BAD_HEADERS")
    used = sum(_utf8("headers", text, "BAD_HEADERS") for header in headers.items() for text in header)
    if used > MAX_HEADERS_BYTES:
        raise InvalidRequest(
            f"headers: {used:,} bytes of keys and values are above the limit of {MAX_HEADERS_BYTES:,}", "BAD_HEADERS"
        )
    return used


def _at_most(name: str, number: int, limit: int, reason: str) -> None:
    if number > limit:
        raise InvalidRequest(f"{name}: {number:,} are above the limit of {limit:,}", reason)


def _between(name: str, number: int, low: int, high: int, reason: str) -> None:
    if not low <= number <= high:
        raise InvalidRequest(f"{name}: {number} is not within {low} to {high}", reason)


def _text(name: str, text: str, limit: int, reason: str) -> None:
    size = _utf8(name, text, reason)
    if size > limit:
        raise InvalidRequest(f"{name}: {size:,} bytes are above the limit of {limit:,}", reason)


def _utf8(name: str, text: str, reason: str) -> int:
    """Return the UTF-8 bytes of `text`."""
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name}: {error}", reason) from error


def _lease_ids(name: str, lease_ids: Sequence[str]) -> None:
    if max(map(len, lease_ids)) > MAX_LEASE_ID_BYTES:
        raise InvalidRequest(f"{name}: a lease id has at most {MAX_LEASE_ID_BYTES} bytes", "BAD_LEASE_ID")


def _duration(name: str, seconds: float, limit: float, positive: bool = False) -> None:
    # Written so that NaN fails as well.
    if not (0 < seconds <= limit if positive else 0 <= seconds <= limit):
        low = "more than 0" if positive else "0"
        raise InvalidRequest(f"{name}: {seconds:g} s is not within {low} to {limit:g} s", "BAD_DURATION")
