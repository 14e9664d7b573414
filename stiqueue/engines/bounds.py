"""The limits of an engine, and the check of new messages against them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from stiqueue.errors import QueueFull

OVERHEAD_BYTES = 200
"""Memory per message in addition to its body and headers; `max_bytes` counts it, to bound tiny messages too."""


class Filled(Protocol):
    """The part of a queue that a `Quota` reads."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def messages(self) -> int:
        """How many messages it has, including those that are being written."""
        ...

    @property
    def bytes(self) -> int:
        """How many bytes of bodies and headers they have."""
        ...

    @property
    def max_messages(self) -> int:
        """Most messages; 0: no limit."""
        ...

    @property
    def max_bytes(self) -> int:
        """Most bytes of bodies and headers; 0: no limit."""
        ...


@dataclass(frozen=True, slots=True)
class Bounds:
    """The limits of an engine; 0 means no limit. New messages above a limit are refused, old ones never dropped."""

    max_messages: int = 0
    """Messages per queue, where its settings say nothing else."""
    max_queue_bytes: int = 0
    """Bytes of bodies and headers per queue, likewise."""
    max_bytes: int = 0
    """Bytes of all queues together: bodies, headers, and `OVERHEAD_BYTES` for each message."""
    max_queues: int = 10_000
    """Queues in use at a time."""


class Quota:
    """Checks new messages against the bounds. Not thread-safe: guarded by its engine's lock."""

    def __init__(self, bounds: Bounds) -> None:
        """Start with nothing used."""
        self.bounds = bounds
        self._used_at_most = bounds.max_bytes
        """An upper bound of the bytes in use; counted again only when it seems too high, because counting is slow."""

    def grew(self, size: int) -> None:
        """Note `size` more bytes of messages that are there, as when they become dead letters, which is not refused."""
        self._used_at_most += size

    def check(self, queue: Filled, queues: Iterable[Filled], number: int, size: int, more: int) -> None:
        """Check that there is room for new messages in `queue`, one of `queues`.

        Each may be 0 or less, where new messages take the place of others: there is always room for that.

        Args:
            queue: where they are to go.
            queues: all queues.
            number: how many messages more `queue` will have.
            size: how many bytes of bodies and headers more it will have.
            more: how many bytes more all queues will have, with `OVERHEAD_BYTES` for each message.

        Raises:
            QueueFull: naming the bound.
        """
        bounds = self.bounds
        if queue.max_messages and queue.messages + number > queue.max_messages and number > 0:
            raise QueueFull(
                f"queue {queue.name!r} has {queue.messages:,} messages; max_messages is {queue.max_messages:,}"
            )
        if queue.max_bytes and queue.bytes + size > queue.max_bytes and size > 0:
            raise QueueFull(f"queue {queue.name!r} has {queue.bytes:,} bytes; max_queue_bytes is {queue.max_bytes:,}")
        if bounds.max_bytes and more > 0:
            if self._used_at_most + more > bounds.max_bytes:
                self._used_at_most = sum(each.bytes + each.messages * OVERHEAD_BYTES for each in queues)
            if self._used_at_most + more > bounds.max_bytes:
                raise QueueFull(
                    f"all queues use {self._used_at_most:,} bytes; max_bytes is {bounds.max_bytes:,}", "SERVER_FULL"
                )
            self._used_at_most += more
