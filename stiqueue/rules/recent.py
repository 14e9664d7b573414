"""Recent request ids, so that a repeated request enqueues nothing twice."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED_SECONDS = 300.0
"""The shortest time for which a request id is remembered."""
SPANS = 10
"""The number of steps in this time; an id is remembered for at most one step more."""
COUNT_BITS = 32


class Recent(Generic[T]):
    """A dictionary that forgets. Not thread-safe: guarded by its engine's lock.

    Entries live in generations, and the oldest generation is dropped after each step. So forgetting costs nothing per
    entry, and no entry has a time. An entry takes about 160 bytes if its request id has 36 characters.
    """

    def __init__(self, now: float) -> None:
        """Start empty at `now`, in monotonic seconds."""
        self._step = REMEMBERED_SECONDS / SPANS
        self._generations: list[dict[str, T]] = [{} for _ in range(SPANS + 1)]
        """The youngest first."""
        self._turn_at = now + self._step

    def get(self, queue: str, request_id: str, now: float) -> T | None:
        """Return the value remembered for `request_id` on `queue`, or None."""
        self._turn(now)
        name = _name(queue, request_id)
        for generation in self._generations:
            if (found := generation.get(name)) is not None:
                return found
        return None

    def remember(self, queue: str, request_id: str, value: T, now: float) -> None:
        """Remember `value` for at least `REMEMBERED_SECONDS` from `now`."""
        self._turn(now)
        self._generations[0][_name(queue, request_id)] = value

    def forget(self, queue: str, request_id: str) -> None:
        """Forget a request that failed."""
        name = _name(queue, request_id)
        for generation in self._generations:
            generation.pop(name, None)

    def _turn(self, now: float) -> None:
        for _ in self._generations:
            if now < self._turn_at:
                return
            self._generations = [{}, *self._generations[:SPANS]]
            self._turn_at += self._step
        self._turn_at = max(self._turn_at, now + self._step)  # after a pause longer than all generations


def _name(queue: str, request_id: str) -> str:
    return f"{queue}\0{request_id}"  # a queue name has no NUL


def pack_ids(first_id: int, count: int) -> int:
    """Pack a first id and a count into one number; a tuple takes twice the memory, and there may be millions."""
    return first_id << COUNT_BITS | count


def unpack_ids(number: int) -> tuple[int, int]:
    """Return the first id and the count of a number that `pack_ids` made."""
    return number >> COUNT_BITS, number & (1 << COUNT_BITS) - 1
