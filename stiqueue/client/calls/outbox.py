"""The requests that a client sends over a pipe: in order, small ones together, each kept until it is answered."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from functools import partial
from typing import Any

from stiqueue.client.calls.parcel import Item, Outcome, Parcel, failed, unknown
from stiqueue.client.transport import Acked
from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.limits import MAX_BATCH
from stiqueue.v1 import pipe_pb2 as pb

MOST_TOGETHER = 999
"""The most requests that travel as one; see `enqueue.BATCH_MESSAGES`."""
MOST_UNANSWERED = 900
"""The most requests in flight: a server reads no further at 1,000."""
REPEAT_SECONDS = 0.1
"""The mean pause before a request is sent again that the server could not serve."""
MOST_OF_A_KIND = 2
"""The most requests of a kind in flight; further ones gather."""
ACKS = "acks"
"""The kind of background acks. One request of them is in flight at a time."""
MANY, MOST_OF_MANY = 1_000, 4
"""Once MANY background acks have gathered, up to MOST_OF_MANY requests are in flight: a data file takes its time, and
unacked messages count against their consumer's credit."""
ACK_TRIES = 3
"""How often a background ack is sent before the client gives up, and its message is delivered again."""


class Outbox:
    """Requests that wait to be sent or answered. Thread-safe; never blocks.

    The rule for what travels together: consecutive items of one kind that gathered while requests of that kind were in
    flight. A refused parcel of several items is divided, because one item's mistake must not fail the others. A parcel
    whose outcome is unknown is repeated unchanged.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self._lock = threading.Lock()
        """Protects all that follows, and the items and parcels in it."""
        self._items: deque[Item] = deque()
        """Items not sent yet. Flows add to it without the lock, so copy it before iterating."""
        self._acks: deque[tuple[str, Acked]] = deque()
        """Background acks: leases and callbacks. Flows add to it without the lock, too."""
        self._again: deque[tuple[float, Parcel]] = deque()
        """Parcels to send again, before all items, and from when on in monotonic seconds."""
        self._unanswered: dict[int, Parcel] = {}
        self._kinds: dict[Hashable, int] = {}
        """The number of unanswered parcels by kind."""
        self._last = 0
        self._pipe = 0
        """The number of the pipe that may take requests; 0: none."""

    def put(self, item: Item) -> None:
        """Add an item."""
        self._items.append(item)  # atomic: no lock on the way in

    def put_ack(self, lease_id: str, done: Acked) -> bool:
        """Add a background ack; return whether `take` would send it now."""
        # No lock per message. This appends first, then looks whether a request is in flight; an answer first ends its
        # request, then looks for acks. So one of the two sees the other.
        self._acks.append((lease_id, done))
        return self._may_ack()

    def _may_ack(self) -> bool:
        on_the_way = self._kinds.get(ACKS, 0)
        return not on_the_way or (on_the_way < MOST_OF_MANY and len(self._acks) >= MANY)

    def is_awaited(self) -> bool:
        """Whether a flow or a background ack waits for an answer."""
        with self._lock:
            again = (parcel for _, parcel in self._again)
            return (
                bool(self._acks)
                or any(item.answered is not None for item in tuple(self._items))
                or any(parcel.is_awaited for parcel in (*self._unanswered.values(), *again))
            )

    def has_unsent(self) -> bool:
        """Whether anything waits to be sent."""
        return bool(self._items or self._again or self._acks)

    def has_acks(self) -> bool:
        """Whether background acks wait to be sent."""
        return bool(self._acks)

    def is_waiting(self) -> bool:
        """Whether a request is in flight."""
        return bool(self._unanswered)

    def pause(self) -> float | None:
        """Return in how many seconds a deferred parcel is due; None: there is none."""
        with self._lock:
            return max(0.0, min(due for due, _ in self._again) - time.monotonic()) if self._again else None

    def open(self) -> int:
        """Begin with a new pipe; return its number, for `take`."""
        with self._lock:
            self._last += 1
            self._pipe = self._last
            return self._pipe

    def take(self, pipe: int) -> pb.PipeRequest | None:
        """Return the next request to send over `pipe`; None if there is none for now or the pipe was lost."""
        with self._lock:
            if pipe != self._pipe or len(self._unanswered) >= MOST_UNANSWERED:
                return None
            parcel = self._next()
            if parcel is None:
                return None
            self._last += 1
            parcel.request.number = self._last
            self._unanswered[self._last] = parcel
            kind = parcel.kind
            if kind is not None:
                self._kinds[kind] = self._kinds.get(kind, 0) + 1
            return parcel.request

    def _next(self) -> Parcel | None:
        if self._again and (parcel := self._next_again()) is not None:
            return parcel
        if self._acks and self._may_ack():
            return self._gathered()
        items = self._items
        while items and items[0].answered is None:  # given up
            items.popleft()
        if not items or (items[0].kind is not None and self._kinds.get(items[0].kind, 0) >= MOST_OF_A_KIND):
            return None
        first = items.popleft()
        if first.kind is None or not items:
            return Parcel([first])
        joint = [first]
        while items and len(joint) < MOST_TOGETHER and items[0].kind == first.kind:
            item = items.popleft()
            if item.answered is not None:
                joint.append(item)
        return Parcel(joint)

    def _next_again(self) -> Parcel | None:
        now = time.monotonic()
        for place, (due, parcel) in enumerate(tuple(self._again)):
            if due <= now:
                del self._again[place]
                return parcel if parcel.is_awaited else self._next_again()
        return None

    def _gathered(self) -> Parcel:
        """Return a parcel of the gathered background acks."""
        # One by one: `clear` would drop an ack that another thread adds meanwhile.
        gathered = [self._acks.popleft() for _ in range(min(len(self._acks), MAX_BATCH))]
        request = pb.PipeRequest()
        request.ack.lease_ids.extend([lease_id for lease_id, _ in gathered])
        return Parcel([Item(request, ACKS, partial(_tell_owners, gathered), ACK_TRIES)])

    def answer(self, response: pb.PipeResponse, failure: StiQueueError | None) -> list[Outcome]:
        """Match a response, or the `failure` in it, to its parcel; return the outcomes to tell."""
        with self._lock:
            parcel = self._forget(response.number)
            if parcel is None:
                return []
            if failure is None:
                answer = getattr(response, response.WhichOneof("response") or "error")
                return [(item, answer, place, None) for place, item in enumerate(parcel.items)]
            if isinstance(failure, Unavailable):
                due = time.monotonic() + REPEAT_SECONDS * random.uniform(0.5, 1.5)
                return self._repeat(parcel, failure, lambda: self._again.append((due, parcel)))
            if parcel.was_sent:  # the first try may have succeeded, so refusing the repetition proves nothing
                if len(parcel.items) > 1:
                    return [(item, None, 0, unknown(failure)) for item in parcel.items]
                failure.is_refusal = False
            elif len(parcel.items) > 1:
                self._divide(parcel)
                return []
            return failed([parcel], failure)

    def _divide(self, parcel: Parcel) -> None:
        """Send each item of a refused parcel alone. The server did nothing, so the request id is free again."""
        first, *others = parcel.items
        if first.request.HasField("enq"):
            del first.request.enq.bodies[1:]
        else:
            del first.request.ack.lease_ids[1:]
        self._again.extend((0.0, Parcel([item])) for item in (first, *others))

    def _repeat(self, parcel: Parcel, failure: StiQueueError, keep: Callable[[], None]) -> list[Outcome]:
        """Let `keep` repeat a parcel whose outcome is unknown, while tries are left."""
        parcel.was_sent = True
        parcel.items[0].tries -= 1
        if parcel.items[0].tries <= 0:
            return failed([parcel], failure)
        for item in parcel.items:
            item.lost = str(failure)
        if parcel.is_awaited:
            keep()
        return []

    def lose(self, failure: Unavailable) -> list[Outcome]:
        """Note that the pipe is lost: repeat the unanswered requests in their order, before all others."""
        with self._lock:
            outcomes: list[Outcome] = []
            again: deque[tuple[float, Parcel]] = deque()
            for number in sorted(self._unanswered):
                parcel = self._unanswered[number]
                outcomes += self._repeat(parcel, failure, lambda parcel=parcel: again.append((0.0, parcel)))  # type: ignore[misc]
            again.extend((0.0, parcel) for _, parcel in self._again)
            self._unanswered.clear()
            self._kinds.clear()
            self._pipe = 0
            self._again = again
            for item in tuple(self._items):
                item.lost = str(failure)
            return outcomes

    def take_items(self) -> list[Parcel]:
        """Remove and return the items not sent yet, each alone."""
        with self._lock:
            return self._take_items()

    def _take_items(self) -> list[Parcel]:
        items = [self._items.popleft() for _ in range(len(self._items))]  # `clear` might take one more
        return [Parcel([item]) for item in items if item.answered is not None]

    def take_all(self) -> list[Parcel]:
        """Remove and return everything unanswered and unsent."""
        with self._lock:
            self._kinds.clear()  # first: whoever adds from now on finds room, and rings
            parcels = [*self._unanswered.values(), *(parcel for _, parcel in self._again), *self._take_items()]
            while self._acks:
                parcels.append(self._gathered())
            self._again.clear()
            self._unanswered.clear()
            self._pipe = 0
            return [parcel for parcel in parcels if parcel.is_awaited]

    def give_up(self, item: Item) -> str:
        """Drop the callback of `item`; return why it had no answer, if known."""
        with self._lock:
            item.answered = None
            self._kinds.clear()  # items that gather no longer wait for such slow answers
            return item.lost

    def _forget(self, number: int) -> Parcel | None:
        parcel = self._unanswered.pop(number, None)
        if parcel is not None and (kind := parcel.kind) is not None:
            left = self._kinds.get(kind, 0) - 1
            if left > 0:
                self._kinds[kind] = left
            else:
                self._kinds.pop(kind, None)
        return parcel


def _tell_owners(acks: list[tuple[str, Acked]], response: Any, _: int, error: Exception | None) -> None:
    """Call each owner back with its own leases."""
    late = frozenset(response.stale_lease_ids) if error is None else frozenset()
    by_owner: dict[Acked, list[str]] = {}
    for lease_id, done in acks:
        by_owner.setdefault(done, []).append(lease_id)
    for done, lease_ids in by_owner.items():
        if error is not None:
            done(lease_ids, error if isinstance(error, StiQueueError) else Unavailable(str(error)))
        else:
            done(lease_ids, [lease_id for lease_id in lease_ids if lease_id in late] if late else [])
