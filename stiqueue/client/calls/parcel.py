"""Requests of flows, and parcels of those that travel as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.v1 import pipe_pb2 as pb


class Avoided(Exception):
    """Raised when there is no pipe: the flow makes a call of its request."""

    def __init__(self, was_sent: bool = False) -> None:
        super().__init__()
        self.was_sent = was_sent
        """Whether it was sent before, so that its outcome is unknown."""


class Item:
    """A request and the callback for its outcome. Not thread-safe: guarded by its outbox's lock."""

    __slots__ = ("answered", "kind", "lost", "request", "tries")

    def __init__(
        self,
        request: pb.PipeRequest,
        kind: Hashable,
        answered: Callable[[Any, int, Exception | None], None],
        tries: float = math.inf,
    ) -> None:
        """Make one.

        Args:
            request: the request.
            kind: items of an equal kind may travel as one; None: alone.
            answered: called once on any thread, without the lock, with (response, place, None) or (None, 0, error). The
                place is the item's index in its parcel. Must not block.
            tries: how often it may be sent while its outcome is unknown.
        """
        self.request = request
        self.kind = kind
        self.answered: Callable[[Any, int, Exception | None], None] | None = answered
        """None once answered or given up."""
        self.tries = tries
        self.lost: str = ""
        """Why it is still unanswered, if known."""


class Parcel:
    """Items that travel as one request, under one request id. Repetitions are identical."""

    __slots__ = ("items", "kind", "request", "was_sent")

    def __init__(self, items: Sequence[Item]) -> None:
        """Join `items`, all of one kind, into the request of the first."""
        self.items = items
        self.kind = items[0].kind
        self.request = items[0].request
        self.was_sent = False
        """Whether it was sent before, so that its outcome is unknown."""
        for item in items[1:]:
            _join(self.request, item.request)

    @property
    def is_awaited(self) -> bool:
        """Whether any item still waits for its outcome."""
        return any(item.answered is not None for item in self.items)


def _join(request: pb.PipeRequest, other: pb.PipeRequest) -> None:
    if request.HasField("enq"):
        request.enq.bodies.extend(other.enq.bodies)
    else:
        request.ack.lease_ids.extend(other.ack.lease_ids)


Outcome = tuple[Item, Any, int, "Exception | None"]


def unknown(failure: StiQueueError) -> Unavailable:
    """Return the error for an item of a repeated parcel that failed, perhaps because of another item."""
    return Unavailable(f"it is unknown whether it was done: the first try had no answer, and the next: {failure}")


def tell(outcomes: Sequence[Outcome]) -> None:
    """Call back with outcomes. The caller does not hold the lock."""
    for item, response, place, error in outcomes:
        answered, item.answered = item.answered, None
        if answered is not None:
            answered(response, place, error)


def failed(parcels: Sequence[Parcel], error: StiQueueError) -> list[Outcome]:
    """Return the outcomes of parcels that failed with `error`."""
    return [(item, None, 0, error) for parcel in parcels for item in parcel.items]
