"""One job of a schedule, and which of its runs are due. Pure: the caller passes the time."""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from stiqueue.cron.times import Times, shown
from stiqueue.limits import DAY

NAME_HEADER = "stiqueue-cron-name"
TIME_HEADER = "stiqueue-cron-time"
"""The time that a run was planned for; the run may come later, by `jitter` or because the server was away."""

LATE_SECONDS = 60.0
"""How late a run may come that is not made up for."""


class Missed(enum.Enum):
    """What becomes of runs that were not enqueued before the next one was due, or within `LATE_SECONDS`."""

    NONE = "none"
    ONE = "one"
    ALL = "all"


class Due(NamedTuple):
    """The runs of an entry that are due."""

    runs: list[int]
    """Those to enqueue, in order."""
    left_out: int
    """How many are not made up for."""
    until: int | None
    """The time of the last of all of them; None: none was due."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One job. Made by `stiqueue.cron.reading`, which checks it. Durations are in seconds."""

    name: str
    times: Times
    queue: str = "default"
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    key: str = ""
    ttl: float | None = None
    jitter: float = 0.0
    missed: Missed = Missed.ONE
    within: float = DAY

    def due(self, since: float, now: float) -> Due:
        """Return the runs later than `since` that are due `now`, as `missed` and `within` choose them."""
        due = list(self.times.between(max(since, now - self.within), now))
        chosen = due if self.missed is Missed.ALL else due[-1:]
        if self.missed is Missed.NONE and chosen and now - chosen[0] > LATE_SECONDS:
            chosen = []
        return Due(chosen, len(due) - len(chosen), due[-1] if due else None)

    def request_id(self, run: int) -> str:
        """Return what every runner calls the request for this run, so that it enqueues once."""
        return f"{self.name}@{shown(run)}"

    def headers_of(self, run: int) -> dict[str, str]:
        """Return the headers of the message for this run."""
        return {**self.headers, NAME_HEADER: self.name, TIME_HEADER: shown(run)}

    def delay(self, run: int, now: float) -> float:
        """Return how many seconds the message for this run waits in the queue: its share of the jitter.

        Every runner comes to the same share, which is drawn from the name and the time.
        """
        if not self.jitter:
            return 0.0
        drawn = int.from_bytes(hashlib.blake2b(self.request_id(run).encode(), digest_size=8).digest(), "big")
        return max(0.0, run + self.jitter * drawn / 2**64 - now)
