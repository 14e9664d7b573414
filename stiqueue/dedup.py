"""Which requests were seen lately, so that a retry enqueues nothing twice."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")

REMEMBERED_SECONDS = 300.0
"""How long a request id is remembered at least."""
SPANS = 10
"""In how many steps this time passes; what is remembered at most is one step more."""
COUNT_BITS = 32


class Recent(Generic[T]):
    """A dictionary that forgets. Not thread-safe: guarded by its engine's lock.

    Entries live in generations, the oldest of which is dropped when a step is over: forgetting costs nothing per entry,
    and no entry needs a time. One takes about 160 bytes, with `packed` ids and a request id of 36 characters.
    """

    def __init__(self, now: float) -> None:
        """Start empty at `now`, in monotonic seconds."""
        self._step = REMEMBERED_SECONDS / SPANS
        self._generations: list[dict[str, T]] = [{} for _ in range(SPANS + 1)]
        """The youngest first."""
        self._turn_at = now + self._step

    def get(self, queue: str, request_id: str, now: float) -> T | None:
        """Return what was remembered for `request_id` on `queue`, or None."""
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
        """Forget a request that came to nothing."""
        name = _name(queue, request_id)
        for generation in self._generations:
            generation.pop(name, None)

    def _turn(self, now: float) -> None:
        for _ in self._generations:
            if now < self._turn_at:
                return
            self._generations = [{}, *self._generations[:SPANS]]
            self._turn_at += self._step
        self._turn_at = max(self._turn_at, now + self._step)  # nobody has asked for longer than all of it


def _name(queue: str, request_id: str) -> str:
    return f"{queue}\0{request_id}"  # no name of a queue has a NUL


def packed(first_id: int, count: int) -> int:
    """Return one number for `count` ids from `first_id` on: there may be millions, and a tuple takes twice as much."""
    return first_id << COUNT_BITS | count


def unpacked(number: int) -> tuple[int, int]:
    """Return the first id and the count of a `packed` number."""
    return number >> COUNT_BITS, number & (1 << COUNT_BITS) - 1
