"""Which requests were seen lately, so that a retry enqueues nothing twice."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED_SECONDS = 300.0
"""How long a request id is remembered at least."""


class Recent(Generic[T]):
    """A dictionary that forgets. Not thread-safe: guarded by its engine's lock.

    Entries live in two generations that change places every `REMEMBERED_SECONDS`, so an entry is remembered for one
    to two such spans and forgetting costs nothing per entry: about 150 bytes an entry and no timestamps.
    """

    def __init__(self, now: float) -> None:
        """Start empty at `now`, in monotonic seconds."""
        self._young: dict[tuple[str, str], T] = {}
        self._old: dict[tuple[str, str], T] = {}
        self._turn_at = now + REMEMBERED_SECONDS

    def get(self, queue: str, request_id: str, now: float) -> T | None:
        """Return what was remembered for `request_id` on `queue`, or None."""
        self._turn(now)
        key = (queue, request_id)
        found = self._young.get(key)
        return self._old.get(key) if found is None else found

    def remember(self, queue: str, request_id: str, value: T, now: float) -> None:
        """Remember `value` for at least `REMEMBERED_SECONDS` from `now`."""
        self._turn(now)
        self._young[queue, request_id] = value

    def forget(self, queue: str, request_id: str) -> None:
        """Forget a request that came to nothing."""
        self._young.pop((queue, request_id), None)
        self._old.pop((queue, request_id), None)

    def _turn(self, now: float) -> None:
        if now < self._turn_at:
            return
        idle_for_a_whole_span = now >= self._turn_at + REMEMBERED_SECONDS
        self._old = {} if idle_for_a_whole_span else self._young
        self._young = {}
        self._turn_at = now + REMEMBERED_SECONDS
