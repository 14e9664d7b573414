"""Messages of `enq_soon` that travel in one request."""

from __future__ import annotations

from typing import NamedTuple

from stiqueue.client.waiting.concurrency import Promise
from stiqueue.message import Batch

JOINT_TIMEOUT = 0.1
"""Messages share a request if handed over within this part of their timeout: the first one's timeout ends for all."""


class Unconfirmed(NamedTuple):
    """One message and the promise of its confirmation."""

    batch: Batch
    promise: Promise
    seconds: float
    since: float
    """When it was handed over, in monotonic seconds."""


class Group:
    """Messages that share one request. Repetitions send it unchanged, with the same request id."""

    __slots__ = ("batch", "items", "number")

    def __init__(self, items: list[Unconfirmed], number: int) -> None:
        """Join `items`, the remaining ones of `number` messages: others were cancelled."""
        self.items = items
        self.number = number
        batch = items[0].batch
        self.batch = batch if len(items) == 1 else batch._replace(bodies=[item.batch.bodies[0] for item in items])

    def divided(self) -> list[Group]:
        """Return a group for each message."""
        *others, last = self.items
        return [*(Group([item], 1) for item in others), Group([last], self.number - len(others))]


def are_alike(first: Unconfirmed, other: Unconfirmed) -> bool:
    """Whether both may share a request: only their bodies differ, and they were handed over together."""
    ours, theirs = first.batch, other.batch
    return (
        ours.queue == theirs.queue
        and ours[3:] == theirs[3:]
        and not (ours.request_id or theirs.request_id or ours.unique_key)
        and first.seconds == other.seconds
        and other.since - first.since <= JOINT_TIMEOUT * first.seconds
    )
