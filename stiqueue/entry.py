"""A message inside an engine, and the two ways in which one leaves it: leased, and looked at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stiqueue.message import State


@dataclass(frozen=True, slots=True)
class Properties:
    """What the messages of one batch have in common, kept once for all of them."""

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
    """The same in milliseconds since 1970 by the wall clock, as the data file has it."""


class Entry(NamedTuple):
    """One message inside an engine. Ordered by `id`, which is unique in its queue.

    A plain tuple, which is made quickly when a message leaves its `stiqueue.run.Run`.
    """

    id: int
    body: bytes
    attempt: int
    """Deliveries so far."""
    properties: Properties

    @property
    def size(self) -> int:
        """Bytes of body and headers: what bounds and prefetch count."""
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
    """One message and where it stands."""

    entry: Entry
    state: State
    consumer: str = ""
    state_age_ms: int = 0
    ready_time_ms: int = 0
