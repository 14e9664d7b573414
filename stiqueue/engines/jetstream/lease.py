"""One lease of a gateway, and the part of a consumer that the table of leases uses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from stiqueue.message import Subscription
from stiqueue.rules.entry import Entry


class Holder(Protocol):
    """The consumer that holds leases."""

    asked: Subscription

    @property
    def ack_timeout(self) -> float | None:
        """The seconds that its next leases last; None: as long as the consumer."""
        ...

    @property
    def closed(self) -> bool:
        """Whether it receives nothing more and gives back its messages."""
        ...

    def finish(self) -> None:
        """Request nothing more; end once nothing is held."""
        ...

    def drop(self, lease: Lease) -> None:
        """Stop holding a message."""
        ...

    def ran_out(self, lease: Lease) -> bool:
        """Count an expired lease against the credit; return whether to remember it."""
        ...

    def settled_late(self, lease_id: str) -> None:
        """Note that an expired lease was settled."""
        ...

    def settled_in_time(self) -> list[str]:
        """Stop counting expired leases; return them."""
        ...

    def settling(self, number: int) -> None:
        """Add credit for `number` acknowledgements in flight; below 0, remove it."""
        ...

    def freed(self) -> None:
        """Note that there is credit again, or nothing more to wait for."""
        ...


class Lease:
    """One delivery of one message to one consumer. Has the attributes of a delivered message."""

    __slots__ = ("consumer", "entry", "good_until", "lease_id", "queue", "reply", "settling", "since")

    def __init__(self, lease_id: str, queue: str, entry: Entry, reply: str, consumer: Holder, since: float) -> None:
        self.lease_id = lease_id
        self.queue = queue
        self.entry = entry
        self.reply = reply
        """The subject for settling it in the cluster."""
        self.consumer = consumer
        self.since = since
        self.good_until = 0.0
        self.settling = False

    @property
    def id(self) -> int:
        return self.entry.id

    @property
    def body(self) -> bytes:
        return self.entry.body

    @property
    def attempt(self) -> int:
        return self.entry.attempt + 1

    @property
    def entry_after(self) -> Entry:
        """The message with this delivery counted."""
        return self.entry._replace(attempt=self.attempt)

    @property
    def priority(self) -> int:
        return 0

    @property
    def headers(self) -> Mapping[str, str]:
        return self.entry.properties.headers

    @property
    def key(self) -> str:
        return ""

    @property
    def unique_key(self) -> str:
        return ""

    @property
    def enqueue_time_ms(self) -> int:
        return self.entry.properties.enqueue_time_ms
