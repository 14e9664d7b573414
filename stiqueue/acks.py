"""Acks that nobody waits for: sent in the background, together whenever several have gathered."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from stiqueue.errors import StiQueueError, Unavailable
from stiqueue.transport import Acked

MANY, MOST_UNDER_WAY = 1_000, 4
"""From how many acks on a further request is sent before the last is answered, and how many there may be."""
TRIES = 3
"""How often an ack is sent before its message is left to be delivered again."""


class AckSender:
    """Sends acks, several in a request. Thread-safe.

    An ack is sent at once when none is under way; those that come meanwhile travel together in the next request. So
    none waits longer than one round trip, and fast consumers send few requests. When many have gathered they wait for
    no answer: a data file takes its time, and what is not acked keeps its consumer from getting more.
    """

    def __init__(self, send: Callable[[list[str], Callable[[list[str] | StiQueueError], None]], None]) -> None:
        """Use `send`, which begins to ack leases and calls back with the stale ones, or with why it failed."""
        self._send = send
        self._lock = threading.Lock()
        """Held to change `_under_way`, and to take from `_gathered`."""
        self._under_way = 0
        self._gathered: deque[tuple[str, Acked]] = deque()

    def ack(self, lease_id: str, done: Acked) -> None:
        """Ack a lease; `done` is told, together with other leases of the same `done`."""
        # No lock on the way of each message: first it is there, then it is looked whether somebody sends. Whoever stops
        # sending says so first and looks afterwards, so that one of the two sees the other.
        self._gathered.append((lease_id, done))
        if not self._under_way or len(self._gathered) >= MANY:
            self._begin()

    def _begin(self) -> None:
        """Send what has gathered in one request more, if there are to be that many."""
        with self._lock:
            if self._under_way and (self._under_way >= MOST_UNDER_WAY or len(self._gathered) < MANY):
                return
            self._under_way += 1
        self._send_gathered()

    def _send_gathered(self) -> None:
        """Send what has gathered, as one of those under way; without anything to send it is under way no more."""
        with self._lock:
            gathered = list(self._gathered)
            self._gathered.clear()
            self._under_way -= not gathered
        if gathered:
            self._try(gathered, TRIES)
        elif self._gathered and not self._under_way:
            self._begin()

    def _try(self, gathered: list[tuple[str, Acked]], tries: int) -> None:
        def answered(stale: list[str] | StiQueueError) -> None:
            if isinstance(stale, Unavailable) and tries > 1:
                self._try(gathered, tries - 1)
                return
            self._send_gathered()
            late = frozenset() if isinstance(stale, StiQueueError) else frozenset(stale)
            by_owner: dict[Acked, list[str]] = {}
            for lease_id, done in gathered:
                by_owner.setdefault(done, []).append(lease_id)
            for done, lease_ids in by_owner.items():
                if isinstance(stale, StiQueueError):
                    done(lease_ids, stale)
                else:
                    done(lease_ids, [lease_id for lease_id in lease_ids if lease_id in late] if late else [])

        self._send([lease_id for lease_id, _ in gathered], answered)
