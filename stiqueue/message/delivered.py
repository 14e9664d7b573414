"""A message as a client receives it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Delivered(Protocol):
    """A message as a client receives it: the wire's `Message`, or a lease of an engine in this process."""

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
        """The headers that it was enqueued with."""
        ...

    @property
    def enqueue_time_ms(self) -> int:
        """When it was enqueued, in milliseconds since 1970."""
        ...

    @property
    def key(self) -> str:
        """What it was enqueued with; empty: no key."""
        ...

    @property
    def unique_key(self) -> str:
        """What it was enqueued with; empty: no unique key."""
        ...
