"""Leases, one per delivery, and their owners. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from stiqueue.rules.arrears import Arrears
from stiqueue.rules.entry import Entry

_ID_BYTES = 12


def new_lease_ids(number: int) -> list[str]:
    """Return unguessable ids: whoever knows one may settle the message."""
    return os.urandom(_ID_BYTES * number).hex("-", _ID_BYTES).split("-") if number else []


class Lease(NamedTuple):
    """One delivery of one message to one owner. Has the attributes of a delivered message."""

    lease_id: str
    """Empty for a `no_ack` delivery, which is not settled."""
    entry: Entry
    """The message as it was before this delivery."""
    owner: Owner
    since: float
    """When it began, in monotonic seconds."""

    def entry_after(self) -> Entry:
        """Return the message with this delivery counted, if it is an attempt."""
        if self.owner.is_exact:
            return self.entry
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

    @property
    def key(self) -> str:
        return self.entry.properties.key

    @property
    def unique_key(self) -> str:
        return self.entry.properties.unique_key


class Owner:
    """The owner of leases: a `Deq` stream, or a consumer in this process. Knows its credit."""

    __slots__ = (
        "ack_timeout",
        "arrears",
        "bytes_left",
        "concurrency",
        "held",
        "is_exact",
        "left",
        "name",
        "no_ack",
        "prefetch",
    )

    def __init__(
        self,
        name: str = "",
        prefetch: int = 1,
        prefetch_bytes: int = 1 << 30,
        max_messages: int = 0,
        no_ack: bool = False,
        ack_timeout: float | None = None,
        concurrency: int = 0,
        is_exact: bool = False,
    ) -> None:
        self.name = name
        self.prefetch = prefetch
        self.concurrency = min(concurrency or prefetch, prefetch)
        """How many of its messages it works on at a time: the first ones, in order of delivery."""
        self.bytes_left = prefetch_bytes
        self.left: float = max_messages or float("inf")
        """How many more messages it may be given in total."""
        self.no_ack = no_ack
        self.ack_timeout = ack_timeout
        self.held: dict[str, Lease] = {}
        """Its leases by id, the oldest first."""
        self.arrears = Arrears()
        self.is_exact = is_exact
        """Whether it asked for messages by their ids; these deliveries do not count as attempts."""

    def room(self) -> int:
        """Return how many more messages it may hold."""
        if not self.arrears:
            return self.prefetch - len(self.held)
        return self.arrears.room(self.prefetch, self.concurrency, len(self.held))

    def has_credit(self) -> bool:
        """Whether it may be given a message now."""
        return self.left > 0 and self.room() > 0 and (self.bytes_left > 0 or bool(self.arrears.trial))

    def forgive(self) -> None:
        """Clear its arrears, because it settled a lease in time."""
        if self.arrears:
            self.bytes_left += self.arrears.forgive()

    def begun(self) -> list[Lease]:
        """Return the leases whose messages its client has presumably begun: as many as it works on at a time."""
        if self.is_exact:
            return []
        return self.first(min(self.places, len(self.held) - len(self.unsent())))

    @property
    def places(self) -> int:
        """How many of its leases its client can work on, besides begun ones that ran out."""
        return self.concurrency - self.arrears.begun

    def first(self, number: int) -> list[Lease]:
        """Return its `number` oldest leases, or fewer."""
        return list(islice(self.held.values(), max(0, number)))

    def unsent(self) -> Sequence[Lease]:
        """Return the leases that are not yet on their way to its client: the last ones of `held`."""
        return ()
