"""What the operations of a queue ask and answer. Engines, server and clients share these values."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

NO_HEADERS: Mapping[str, str] = {}


class Durability(enum.IntEnum):
    """Where a confirmed message is stored; the numbers are those of the protocol."""

    MEMORY = 1
    DISK = 2
    REPLICATED = 3


class Outcome(enum.IntEnum):
    """How a lease is settled; the numbers are those of the protocol."""

    ACK = 1
    REQUEUE = 2
    DEAD_LETTER = 3
    EXTEND = 4


class State(enum.IntEnum):
    """The state of a message; the numbers are those of the protocol. `ALL` is for requests only."""

    READY = 1
    LEASED = 2
    DELAYED = 3
    ALL = 4


class Batch(NamedTuple):
    """The request of an `Enq`. Durations are in seconds. A plain tuple, because every single message makes one."""

    queue: str
    bodies: Sequence[bytes]
    request_id: str = ""
    priority: int = 0
    delay: float = 0.0
    ttl: float | None = None
    headers: Mapping[str, str] = NO_HEADERS
    ack_lease_ids: Sequence[str] = ()
    key: str = ""
    unique_key: str = ""


class Receipt(NamedTuple):
    """The answer to an `Enq`. Ids are consecutive from `first_id`."""

    first_id: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    duplicate: bool
    durability: Durability


@dataclass(frozen=True, slots=True)
class Subscription:
    """The request of a `Deq`. Durations are in seconds."""

    queue: str
    prefetch: int = 1
    prefetch_bytes: int = 16 << 20
    max_messages: int = 0
    no_ack: bool = False
    wait: float | None = None
    ack_timeout: float | None = None
    consumer: str = ""
    concurrency: int = 0
    ids: Sequence[int] = ()
    """Exactly these messages; none: the messages as they become ready."""


class Settlement(NamedTuple):
    """The request of an `Ack`. `delay` is in seconds. A plain tuple, like a `Batch`."""

    lease_ids: Sequence[str]
    outcome: Outcome = Outcome.ACK
    delay: float = 0.0
    reason: str = ""
    close_stream: bool = False
    untouched: bool = False


@dataclass(frozen=True, slots=True)
class PeekQuery:
    """The request of a `Peek`; `limit` 0 means all."""

    queue: str
    limit: int = 0
    after_id: int = 0
    state: State = State.READY
    after_priority: int | None = None
    """None: `after_id` holds for all priorities."""

    def after_id_of(self, priority: int) -> int | None:
        """Return the id above which messages of `priority` are shown; None: none of them are."""
        if self.after_priority is None or priority == self.after_priority:
            return self.after_id
        return 0 if priority < self.after_priority else None


@dataclass(slots=True)
class Counts:
    """The counts of one queue at one moment; the totals are since the server started."""

    queue: str
    ready: int = 0
    leased: int = 0
    delayed: int = 0
    consumers: int = 0
    bytes: int = 0
    oldest_ready_age_ms: int = 0
    oldest_lease_age_ms: int = 0
    enqueued: int = 0
    acked: int = 0
    requeued: int = 0
    expired: int = 0
    dead_lettered: int = 0
    paused: bool = False
    paused_ms: int = 0
    blocked: int = 0
