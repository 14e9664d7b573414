"""The operations of a queue: what one request may ask for."""

from __future__ import annotations

from collections.abc import Sequence

from stiqueue.arguments import check_kind, check_seconds, check_whole
from stiqueue.errors import InvalidRequest
from stiqueue.limits.headers import TRACE_HEADERS, check_headers, headers_size
from stiqueue.limits.sizes import at_most, check_utf8
from stiqueue.message import Batch, Outcome, PeekQuery, Settlement, State, Subscription

MAX_BATCH = 100_000
MAX_REQUEST_ID_BYTES = 128
MAX_LEASE_ID_BYTES = 128
MAX_KEY_BYTES = 128
MAX_CONSUMER_BYTES = 128
MAX_REASON_BYTES = 1024
MAX_PRIORITY = 255
MAX_PREFETCH = 10_000
DEFAULT_PREFETCH_BYTES = 16 << 20
MAX_PREFETCH_BYTES = 1 << 30
MAX_ATOMIC_ACKS = 10_000
MAX_NAMED_QUEUES = 10_000
MAX_IDS = 10_000
DAY = 86_400.0
MAX_DELAY = 366 * DAY
MAX_TTL = 3_660 * DAY
MIN_ACK_TIMEOUT = 0.01
"""A shorter lease ends before a client on the same machine can settle it: it would only go round."""
MAX_ACK_TIMEOUT = 7 * DAY
MESSAGE_ROOM = 16 << 10
"""How much smaller than the largest request the largest message is: room for names, headers of dead letters and
framing, so that whatever could be enqueued can be delivered."""


def check_batch(batch: Batch, max_message_bytes: int) -> None:
    """Check what one `Enq` asks for."""
    if not batch.bodies:
        raise InvalidRequest("bodies: at least one message is needed", "EMPTY_BATCH")
    at_most("bodies", len(batch.bodies), MAX_BATCH, "TOO_MANY_MESSAGES")
    used = check_properties(batch)
    if used:
        used -= headers_size({name: batch.headers[name] for name in TRACE_HEADERS if name in batch.headers})
    longest = max(map(len, batch.bodies)) + used
    if longest > max_message_bytes:
        raise InvalidRequest(
            f"bodies: a message of {longest:,} bytes with its headers is above the limit of {max_message_bytes:,}",
            "MESSAGE_TOO_LARGE",
        )
    if batch.ack_lease_ids:
        at_most("ack_lease_ids", len(batch.ack_lease_ids), MAX_ATOMIC_ACKS, "TOO_MANY_MESSAGES")
        _lease_ids("ack_lease_ids", batch.ack_lease_ids)


def check_properties(batch: Batch) -> int:
    """Check what an `Enq` asks for beside its bodies and leases; return the bytes of its headers."""
    # Skip fields left at their defaults: this runs for every single message, in the client and in the server.
    if batch.request_id != "":
        check_utf8("request_id", batch.request_id, MAX_REQUEST_ID_BYTES, "BAD_REQUEST_ID")
    priority, delay = batch.priority, batch.delay
    if priority or priority.__class__ is not int:
        check_whole("priority", priority, 0, MAX_PRIORITY, "BAD_PRIORITY")
    if delay or delay.__class__ is not float:
        check_seconds("delay", delay, MAX_DELAY)
    if batch.ttl is not None:
        check_seconds("ttl", batch.ttl, MAX_TTL, positive=True)
    if batch.key != "":
        check_utf8("key", batch.key, MAX_KEY_BYTES, "BAD_KEY")
    if batch.unique_key != "":
        check_utf8("unique_key", batch.unique_key, MAX_KEY_BYTES, "BAD_UNIQUE_KEY")
        if len(batch.bodies) > 1:
            raise InvalidRequest("unique_key: it goes with a single message", "BAD_UNIQUE_KEY")
    return check_headers(batch.headers)


def check_subscription(asked: Subscription) -> None:
    """Check what one `Deq` asks for."""
    check_whole("prefetch", asked.prefetch, 1, MAX_PREFETCH, "BAD_LIMIT")
    check_whole("prefetch_bytes", asked.prefetch_bytes, 1, MAX_PREFETCH_BYTES, "BAD_LIMIT")
    check_whole("max_messages", asked.max_messages, 0, 2**63 - 1, "BAD_LIMIT")
    if asked.wait is not None:
        check_seconds("wait", asked.wait, MAX_DELAY)
    check_ack_timeout(asked.ack_timeout)
    check_whole("concurrency", asked.concurrency, 0, MAX_PREFETCH, "BAD_LIMIT")
    check_consumer(asked.consumer)
    if asked.ids:
        check_ids(asked.ids)


def check_ids(ids: Sequence[int]) -> None:
    """Check the ids of messages."""
    at_most("ids", len(ids), MAX_IDS, "BAD_IDS")
    for message_id in ids:
        check_whole("ids", message_id, 1, 2**64 - 1, "BAD_IDS")


def check_ack_timeout(seconds: float | None) -> None:
    """Check how long a lease lasts; None and 0 mean the server's own."""
    if seconds is None or (seconds == 0 and seconds is not False):
        return
    check_seconds("ack_timeout", seconds, MAX_ACK_TIMEOUT, least=MIN_ACK_TIMEOUT)


def check_consumer(name: str) -> None:
    """Check the name of a consumer."""
    check_utf8("consumer", name, MAX_CONSUMER_BYTES, "BAD_CONSUMER")


def check_settlement(settlement: Settlement) -> None:
    """Check what one `Ack` asks for."""
    if not settlement.lease_ids:
        raise InvalidRequest("lease_ids: at least one is needed", "EMPTY_BATCH")
    at_most("lease_ids", len(settlement.lease_ids), MAX_BATCH, "TOO_MANY_MESSAGES")
    _lease_ids("lease_ids", settlement.lease_ids)
    if settlement.outcome is Outcome.EXTEND:
        check_seconds("seconds (the field delay of EXTEND)", settlement.delay, MAX_ACK_TIMEOUT, positive=True)
    elif settlement.outcome is Outcome.REQUEUE:
        check_seconds("delay", settlement.delay, MAX_DELAY)
    elif settlement.delay:
        raise InvalidRequest("delay: only REQUEUE and EXTEND have one", "BAD_DURATION")
    if settlement.reason and settlement.outcome is not Outcome.DEAD_LETTER:
        raise InvalidRequest("reason: only DEAD_LETTER has one", "BAD_REASON")
    if settlement.untouched and settlement.outcome is not Outcome.REQUEUE:
        raise InvalidRequest("untouched: only what is given back by REQUEUE can be untouched", "BAD_UNTOUCHED")
    check_utf8("reason", settlement.reason, MAX_REASON_BYTES, "BAD_REASON")


def check_exchange(settlement: Settlement) -> None:
    """Check what one `Ack` asks for beyond `check_settlement` when it takes the next messages as well."""
    if settlement.outcome is not Outcome.ACK or len(settlement.lease_ids) > 1 or settlement.close_stream:
        raise InvalidRequest("take_next: it goes with the ACK of a single lease whose stream goes on", "BAD_TAKE_NEXT")


def check_peek(query: PeekQuery) -> None:
    """Check what one `Peek` asks for."""
    if not isinstance(query.state, State):
        check_kind("state", query.state, State, "State.READY, LEASED, DELAYED or ALL", "BAD_STATE")
    check_whole("limit", query.limit, 0, 2**63 - 1, "BAD_LIMIT")
    check_whole("after_id", query.after_id, 0, 2**64 - 1, "BAD_LIMIT")
    if query.after_priority is not None:
        check_whole("after_priority", query.after_priority, 0, MAX_PRIORITY, "BAD_PRIORITY")


def count_of(n: int) -> int:
    """Return how many messages the argument `n` means, where 0 and what is below mean all."""
    if n.__class__ is not int or n > 0:
        check_whole("n", n, -(2**63), 2**63 - 1, "BAD_LIMIT")
    return max(0, n)


def check_queues(names: Sequence[str]) -> None:
    """Check how many queues one `Cnt` names."""
    at_most("queues", len(names), MAX_NAMED_QUEUES, "TOO_MANY_QUEUES")


def _lease_ids(name: str, lease_ids: Sequence[str]) -> None:
    if max(map(len, lease_ids)) > MAX_LEASE_ID_BYTES:
        raise InvalidRequest(f"{name}: a lease id has at most {MAX_LEASE_ID_BYTES} bytes", "BAD_LEASE_ID")
