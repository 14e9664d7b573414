"""How far one process is with each entry of a schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from stiqueue.cron.entry import Entry, Missed


class Status(NamedTuple):
    """What has become of an entry in this process. Times are in seconds since 1970."""

    name: str
    next_run: int | None
    """None: it never comes again, or is not known yet."""
    last_run: int | None
    """The last run that this process enqueued, or found enqueued."""
    runs: int
    """How many those were."""
    left_out: int
    """How many missed runs were not made up for."""
    failures: int
    """How many tries to enqueue a run have failed."""


@dataclass(slots=True)
class Line:
    """An entry and how far this process is with it."""

    entry: Entry
    since: float | None = None
    """All runs up to here are done, or left out; None: that is not known yet."""
    is_unmarked: bool = False
    """Whether `since` is still to be marked."""
    last_run: int | None = None
    runs: int = 0
    left_out: int = 0
    failures: int = 0
    retry_at: float = 0.0
    """Not before this time; monotonic."""

    @property
    def key(self) -> tuple[str, str]:
        """Return what its runs are marked under."""
        return self.entry.name, self.entry.times.text

    @property
    def is_marked(self) -> bool:
        """Whether the runs of the entry are marked: those that are made up for."""
        return self.entry.missed is not Missed.NONE

    @property
    def next_run(self) -> int | None:
        """Return its next run in seconds since 1970, if that is known and there is one."""
        return None if self.since is None else self.entry.times.after(self.since)
