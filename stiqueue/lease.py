"""Who holds what: one lease for each delivery. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from stiqueue.entry import Entry

_ID_BYTES = 12


def new_lease_ids(number: int) -> list[str]:
    """Return ids of which nobody can guess another: who knows one may settle the message."""
    return os.urandom(_ID_BYTES * number).hex("-", _ID_BYTES).split("-") if number else []


class Lease(NamedTuple):
    """One delivery of one message to one owner. Has the attributes of a delivered message."""

    lease_id: str
    """Empty when the message is not leased but given away."""
    entry: Entry
    """The message as it was before this delivery."""
    owner: Owner
    since: float
    """When it began, in monotonic seconds."""

    def entry_after(self) -> Entry:
        """Return the message with this delivery counted."""
        return self.entry._replace(attempt=self.entry.attempt + 1)

    @property
    def attempt(self) -> int:
        return self.entry.attempt + 1

    @property
    def id(self) -> int:
        return self.entry.id

    @property
    def body(self) -> bytes:
        return self.entry.body

    @property
    def priority(self) -> int:
        return self.entry.properties.priority

    @property
    def headers(self) -> Mapping[str, str]:
        return self.entry.properties.headers

    @property
    def enqueue_time_ms(self) -> int:
        return self.entry.properties.enqueue_time_ms


class Owner:
    """Who leases belong to: one `Deq` stream, or one consumer of this process. Knows its credit."""

    __slots__ = ("ack_timeout", "bytes_left", "held", "left", "name", "no_ack", "prefetch")

    def __init__(
        self,
        name: str = "",
        prefetch: int = 1,
        prefetch_bytes: int = 1 << 30,
        max_messages: int = 0,
        no_ack: bool = False,
        ack_timeout: float | None = None,
    ) -> None:
        self.name = name
        self.prefetch = prefetch
        self.bytes_left = prefetch_bytes
        self.left: float = max_messages or float("inf")
        """How many messages it may still be given in all."""
        self.no_ack = no_ack
        self.ack_timeout = ack_timeout
        self.held: dict[str, Lease] = {}
        """Its leases by lease id, the oldest first."""

    def has_credit(self) -> bool:
        """Whether it may be given a message now."""
        return self.left > 0 and len(self.held) < self.prefetch and self.bytes_left > 0
