"""How much an engine takes in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from stiqueue.errors import QueueFull

OVERHEAD_BYTES = 200
"""What a message takes in memory beside its body and headers; counted by `max_bytes`, so that tiny ones fit as well."""


class Filled(Protocol):
    """A queue, as far as its room is concerned."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def messages(self) -> int:
        """How many messages it has, those included that are being written."""
        ...

    @property
    def bytes(self) -> int:
        """How many bytes of bodies and headers they have."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much an engine takes in; 0 means no bound. What is above is refused, nothing old is dropped."""

    max_messages: int = 0
    """Messages per queue."""
    max_queue_bytes: int = 0
    """Bytes of bodies and headers per queue."""
    max_bytes: int = 0
    """Bytes of all queues together: bodies, headers, and `OVERHEAD_BYTES` for each message."""
    max_queues: int = 10_000
    """Queues in use at a time."""


class Room:
    """What is left of the bounds. Not thread-safe: guarded by its engine's lock."""

    def __init__(self, bounds: Bounds) -> None:
        """Start with nothing used."""
        self.bounds = bounds
        self._used_at_most = bounds.max_bytes
        """What all queues use at the most: counted anew only when it seems to be too much, since that takes long."""

    def check(self, queue: Filled, queues: Iterable[Filled], number: int, size: int) -> None:
        """Check that `queue`, one of `queues`, has room for `number` more messages of `size` bytes in all.

        Raises:
            QueueFull: naming the bound.
        """
        bounds = self.bounds
        if bounds.max_messages and queue.messages + number > bounds.max_messages:
            raise QueueFull(
                f"queue {queue.name!r} has {queue.messages:,} messages; max_messages is {bounds.max_messages:,}"
            )
        if bounds.max_queue_bytes and queue.bytes + size > bounds.max_queue_bytes:
            raise QueueFull(
                f"queue {queue.name!r} has {queue.bytes:,} bytes; max_queue_bytes is {bounds.max_queue_bytes:,}"
            )
        if bounds.max_bytes:
            more = size + number * OVERHEAD_BYTES
            if self._used_at_most + more > bounds.max_bytes:
                self._used_at_most = sum(each.bytes + each.messages * OVERHEAD_BYTES for each in queues)
            if self._used_at_most + more > bounds.max_bytes:
                raise QueueFull(
                    f"all queues use {self._used_at_most:,} bytes; max_bytes is {bounds.max_bytes:,}", "SERVER_FULL"
                )
            self._used_at_most += more
