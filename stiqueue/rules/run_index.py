"""The runs with a key that are in memory, by id. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from bisect import bisect_right, insort_right
from collections.abc import Iterator
from itertools import islice
from operator import attrgetter

from stiqueue.rules.entry import Entry
from stiqueue.rules.lane import LOOK_MESSAGES
from stiqueue.rules.run import Run

_SLACK = 64
"""Empty runs that are tolerated, however few others there are."""
_FIRST_ID = attrgetter("first_id")


class RunIndex(dict[int, list[Run]]):
    """The runs of each priority in the order of ids, with runs that are empty by now."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._empty = 0

    def add(self, run: Run) -> None:
        """Add a run, whose ids are not among those of another."""
        runs = self.setdefault(run.properties.priority, [])
        if not runs or runs[-1].last_id < run.first_id:
            runs.append(run)
        else:
            insort_right(runs, run, key=_FIRST_ID)

    def emptied(self) -> None:
        """Count a run that is empty now; drop the empty ones when there are many."""
        self._empty += 1
        if self._empty > sum(map(len, self.values())) // 2 + _SLACK:
            for priority, runs in self.items():
                self[priority] = [*filter(len, runs)]
            self._empty = 0

    def find(self, message_id: int) -> Run | None:
        """Return the run that has a message; None: it is not here."""
        for runs in self.values():
            at = bisect_right(runs, message_id, key=_FIRST_ID)
            while at and not runs[at - 1]:
                at -= 1
            if at and message_id <= runs[at - 1].last_id:
                return runs[at - 1]
        return None

    def after(self, priority: int, message_id: int) -> Iterator[Entry]:
        """Iterate over the messages of a priority with greater ids, in order."""
        runs = self.get(priority, ())
        start = max(0, bisect_right(runs, message_id, key=_FIRST_ID) - 1)
        for run in islice(runs, start, None):
            for at in range(max(0, message_id + 1 - run.first_id), len(run), LOOK_MESSAGES):
                yield from run.entries(at, LOOK_MESSAGES)
