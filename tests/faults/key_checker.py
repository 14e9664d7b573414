"""Judges what workers wrote down of messages with keys: in order, one at a time, none lost.

`check` is a pure function: the same events always give the same result.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

SLACK_SECONDS = 1.0
"""For how long after a server's start a worker may write down what the one before had delivered."""


class Noted(NamedTuple):
    """One event. Times are those of one monotonic clock for all processes."""

    at: float
    what: str
    """got, done (just before the ack), acked (the ack was confirmed); killed (a worker's process); started (a server).
    """
    worker: str = ""
    """The process, a slash and the thread; for "killed" the process."""
    key: str = ""
    number: int = 0


@dataclass
class _Strand:
    head: int = 0
    """The first number that is not surely settled."""
    done: set[int] = field(default_factory=set)
    """Numbers whose ack was sent."""
    holders: dict[str, int] = field(default_factory=dict)
    """Workers that are at a message, with its number."""


def check(sent: Mapping[str, int], events: Iterable[Noted]) -> list[str]:
    """Return what is wrong; `sent` has how many messages of each key were confirmed, numbered from 0."""
    wrong: list[str] = []
    strands: defaultdict[str, _Strand] = defaultdict(_Strand)
    dead: set[str] = set()
    started = float("-inf")
    for at, what, worker, key, number in sorted(events):
        strand = strands[key]
        if what == "killed":
            dead.add(worker)
            for each in strands.values():
                each.holders = {who: of for who, of in each.holders.items() if who.partition("/")[0] != worker}
        elif what == "started":
            started = at
            for each in strands.values():
                each.holders.clear()
        elif what == "got":
            for who, other in strand.holders.items():
                wrong.append(f"two at a time: {key} {number} at {worker}, {other} at {who}")
            if number == strand.head + 1 and strand.head in strand.done:
                strand.head += 1  # its ack was not answered, and had worked
            if number != strand.head:
                wrong.append(f"out of order: {key} {number} instead of {strand.head} at {worker}")
            if at >= started + SLACK_SECONDS and worker.partition("/")[0] not in dead:
                strand.holders[worker] = number
        elif what == "done":
            strand.holders.pop(worker, None)
            strand.done.add(number)
        elif what == "acked":
            strand.head = max(strand.head, number + 1)
    for key, count in sent.items():
        head = strands[key].head + (strands[key].head in strands[key].done)
        if head < count:
            wrong.append(f"lost: {key} {head} to {count - 1}")
    return wrong
