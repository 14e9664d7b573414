"""The values that move through a queue: frozen, shared by engines, server and clients."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

DEAD_SUFFIX = ".dead"
"""What the name of a dead letter queue ends with."""

DEAD_QUEUE_HEADER = "stiqueue-dead-queue"
DEAD_REASON_HEADER = "stiqueue-dead-reason"
DEAD_ATTEMPTS_HEADER = "stiqueue-dead-attempts"

Body = str | bytes | bytearray | memoryview
"""What can be enqueued; text is sent as UTF-8."""

NO_HEADERS: Mapping[str, str] = {}

M = TypeVar("M", bound="Message")


class Durability(enum.IntEnum):
    """How safe a confirmed message is; the numbers are those of the protocol."""

    MEMORY = 1
    DISK = 2
    REPLICATED = 3


class Outcome(enum.IntEnum):
    """What becomes of a leased message; the numbers are those of the protocol."""

    ACK = 1
    REQUEUE = 2
    DEAD_LETTER = 3
    EXTEND = 4


class State(enum.IntEnum):
    """Where a message stands; the numbers are those of the protocol. `ALL` is for asking only."""

    READY = 1
    LEASED = 2
    DELAYED = 3
    ALL = 4


class Batch(NamedTuple):
    """What one `Enq` asks for. Durations are in seconds. A plain tuple, for one is made for each single message."""

    queue: str
    bodies: Sequence[bytes]
    request_id: str = ""
    priority: int = 0
    delay: float = 0.0
    ttl: float | None = None
    headers: Mapping[str, str] = NO_HEADERS
    ack_lease_ids: Sequence[str] = ()


class Receipt(NamedTuple):
    """What an `Enq` answers: ids are consecutive from `first_id`."""

    first_id: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here
    duplicate: bool
    durability: Durability


@dataclass(frozen=True, slots=True)
class Subscription:
    """What one `Deq` asks for. Durations are in seconds."""

    queue: str
    prefetch: int = 1
    prefetch_bytes: int = 16 << 20
    max_messages: int = 0
    no_ack: bool = False
    wait: float | None = None
    ack_timeout: float | None = None
    consumer: str = ""


class Settlement(NamedTuple):
    """What one `Ack` asks for. `delay` is in seconds. A plain tuple, as a `Batch` is."""

    lease_ids: Sequence[str]
    outcome: Outcome = Outcome.ACK
    delay: float = 0.0
    reason: str = ""
    close_stream: bool = False


@dataclass(frozen=True, slots=True)
class PeekQuery:
    """What one `Peek` asks for; `limit` 0 means all."""

    queue: str
    limit: int = 0
    after_id: int = 0
    state: State = State.READY


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


class Delivered(Protocol):
    """A message as a client gets it: the wire's `Message`, or a lease of an engine in the same process."""

    @property
    def id(self) -> int:
        """Unique and rising within its queue."""
        ...

    @property
    def lease_id(self) -> str:
        """The name of this delivery; empty when it is not leased."""
        ...

    @property
    def body(self) -> bytes:
        """The payload."""
        ...

    @property
    def attempt(self) -> int:
        """Which delivery this is, from 1."""
        ...

    @property
    def priority(self) -> int:
        """0..255."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """What it was enqueued with."""
        ...

    @property
    def enqueue_time_ms(self) -> int:
        """When, in milliseconds since 1970."""
        ...


class Holder(Protocol):
    """What holds the lease of a message: the way back to the client that took it."""

    def settle(self, message: Message, settlement: Settlement) -> Any:
        """Settle `message`."""
        ...

    def hand_over(self, message: Message, msg: Body, **options: Any) -> Any:
        """Ack `message` and enqueue `msg`, in one step."""
        ...

    def retry_delay(self, message: Message) -> float:
        """Return how many seconds `message` waits when it is requeued without saying how long."""
        ...


class Message(bytes):
    """A delivered message: its body as `bytes`, with what a worker needs to know and to answer.

    `ack`, `requeue`, `dead_letter` and `extend` return whether the lease was still held: True when it took effect,
    False when the lease had expired or the message was settled before (harmless: it is or was delivered again). From
    an `AsyncSQClient` they are to be awaited.
    """

    _delivered: Delivered
    _holder: Holder | None
    _is_settled = False
    """Whether it was settled by hand, where somebody asks for that: in a loop."""

    queue: str
    """The queue it came from."""

    @classmethod
    def wrap(cls: type[M], delivered: Delivered, queue: str, holder: Holder | None) -> M:
        """Make a message of what a transport delivered; `holder` is None when there is nothing to settle."""
        message = cls(delivered.body)
        message._delivered = delivered
        message.queue = queue
        message._holder = holder
        return message

    @property
    def id(self) -> int:
        """Its id: unique and rising within its queue."""
        return self._delivered.id

    @property
    def lease_id(self) -> str:
        """The name of this delivery; empty when it is not leased."""
        return self._delivered.lease_id

    @property
    def attempt(self) -> int:
        """Which delivery this is: 1, 2, ... For a peeked message: how many it has had so far."""
        return self._delivered.attempt

    @property
    def priority(self) -> int:
        """The priority it was enqueued with, 0..255."""
        return self._delivered.priority

    @property
    def headers(self) -> dict[str, str]:
        """The headers it was enqueued with (a new dictionary)."""
        return dict(self._delivered.headers)

    @property
    def enqueue_time_ms(self) -> int:
        """When it was enqueued: milliseconds since 1970 by the server's clock."""
        return self._delivered.enqueue_time_ms

    def ack(self) -> Any:
        """Settle the message: it is done and forgotten."""
        return self._answer(Settlement([self.lease_id]))

    def requeue(self, delay: float | None = None) -> Any:
        """Give the message back to its old place in the queue.

        Args:
            delay: seconds that it is invisible; default: the client's `retry_delay`, doubled at each attempt.
        """
        wait = self._held().retry_delay(self) if delay is None else delay
        return self._answer(Settlement([self.lease_id], Outcome.REQUEUE, wait))

    def ack_and_enq(self, msg: Body, **options: Any) -> Any:
        """Settle the message and enqueue `msg` in one step: both happen or neither.

        Args:
            msg: the body of the new message.
            options: those of `enq`: queue, priority, delay, ttl, headers, request_id, timeout.

        Returns:
            The new message's id.

        Raises:
            LeaseStale: the lease had expired: nothing was enqueued, for the message is or was delivered again.
        """
        return self._held().hand_over(self, msg, **options)

    def dead_letter(self, reason: str = "") -> Any:
        """Move the message to the queue ``<queue>.dead``, with `reason` in its headers."""
        return self._answer(Settlement([self.lease_id], Outcome.DEAD_LETTER, reason=reason))

    def extend(self, seconds: float) -> Any:
        """Hold the lease for `seconds` from now, however long it had."""
        return self._answer(Settlement([self.lease_id], Outcome.EXTEND, seconds))

    def _answer(self, settlement: Settlement) -> Any:
        return self._held().settle(self, settlement)

    def _held(self) -> Holder:
        if self._holder is None:
            raise ValueError("this message is not leased: there is nothing to settle")
        return self._holder

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        """Pickle as plain `bytes`: a lease belongs to the process that holds it."""
        return bytes, (bytes(self),)


class PeekedMessage(Message):
    """A message that was looked at, not taken, and where it stands."""

    state: State
    """READY, LEASED or DELAYED."""
    consumer: str
    """Who holds it, when it is leased."""
    state_age_ms: int
    """Milliseconds since it entered this state."""
    ready_time_ms: int
    """When it can be delivered next, in milliseconds since 1970; 0: now, or unknown."""
    expire_time_ms: int
    """When its ttl runs out, in milliseconds since 1970; 0: never."""

    @classmethod
    def show(
        cls,
        delivered: Delivered,
        queue: str,
        state: State,
        consumer: str,
        state_age_ms: int,
        ready_time_ms: int,
        expire_time_ms: int,
    ) -> PeekedMessage:
        """Make a peeked message of what a transport answered."""
        message = cls(delivered.body)
        message._delivered, message._holder, message.queue = delivered, None, queue
        message.state, message.consumer = state, consumer
        message.state_age_ms, message.ready_time_ms = state_age_ms, ready_time_ms
        message.expire_time_ms = expire_time_ms
        return message
