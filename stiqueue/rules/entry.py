"""A message inside an engine, and the two forms in which it leaves: leased and peeked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stiqueue.message import State


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties that the messages of one batch share."""

    enqueue_time_ms: int
    """When they were enqueued, in milliseconds since 1970 by the wall clock."""
    priority: int = 0
    """0..255, higher is delivered first."""
    headers: Mapping[str, str] = field(default_factory=dict)
    headers_bytes: int = 0
    """UTF-8 bytes of all keys and values of `headers`."""
    expires_at: float | None = None
    """When they expire, in seconds of the engine's monotonic clock; None: never."""
    expires_ms: int | None = None
    """The same in milliseconds since 1970 by the wall clock, for the data file."""
    key: str = ""
    """Messages of one key are delivered in order and one at a time; empty: they wait for nobody."""
    unique_key: str = ""
    """No other message with this is enqueued while this one is in the queue; empty: it does not matter."""


class Entry(NamedTuple):
    """One message inside an engine. Ordered by `id`, which is unique in its queue.

    A tuple, because it is quick to make when a message leaves its `stiqueue.rules.run.Run`.
    """

    id: int
    body: bytes
    attempt: int
    """Deliveries so far."""
    properties: Properties

    @property
    def size(self) -> int:
        """Bytes of body and headers, as bounds and prefetch count them."""
        return len(self.body) + self.properties.headers_bytes


class Leased(Protocol):
    """A message as an engine gives it to a consumer."""

    @property
    def lease_id(self) -> str:
        """The name of this delivery; empty when nothing is to be settled."""
        ...

    @property
    def entry(self) -> Entry:
        """The message, as it was before this delivery."""
        ...


class Peeked(NamedTuple):
    """One message and its state. Has the attributes of a delivered message, without a lease."""

    entry: Entry
    state: State
    consumer: str = ""
    state_age_ms: int = 0
    ready_time_ms: int = 0
    blocked: bool = False
    """Whether it is ready and its key is not free."""

    @property
    def id(self) -> int:
        return self.entry.id

    @property
    def lease_id(self) -> str:
        return ""

    @property
    def body(self) -> bytes:
        return self.entry.body

    @property
    def attempt(self) -> int:
        return self.entry.attempt

    @property
    def priority(self) -> int:
        return self.entry.properties.priority

    @property
    def headers(self) -> Mapping[str, str]:
        return self.entry.properties.headers

    @property
    def enqueue_time_ms(self) -> int:
        return self.entry.properties.enqueue_time_ms

    @property
    def key(self) -> str:
        return self.entry.properties.key

    @property
    def unique_key(self) -> str:
        return self.entry.properties.unique_key
