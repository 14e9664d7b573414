"""Changes to the messages of queues, as an engine writes them to its log."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from stiqueue.engines.local.consumer import Queue, Wakes
from stiqueue.errors import StiQueueError
from stiqueue.rules.entry import Entry
from stiqueue.rules.later import Answer
from stiqueue.rules.policies import Policy
from stiqueue.rules.run import Run

T = TypeVar("T")


@dataclass(slots=True)
class Insert:
    """New messages of one batch. Times are milliseconds by the wall clock."""

    queue: str
    run: Run
    size: int
    """Bytes of their bodies and headers."""
    due_ms: int | None = None


class LaneName(NamedTuple):
    """Which messages are kept together: those of one queue, priority and key, or without a key."""

    queue: str
    priority: int
    key: str = ""


class Remove(NamedTuple):
    """Messages of one queue that were settled, expired or moved."""

    queue: str
    entries: Sequence[Entry]
    lane: LaneName | None = None
    """That of all of them, if it is known to be the same."""
    size: int = 0
    """Bytes of their bodies and headers, if their lane is known."""

    @classmethod
    def of(cls, lane: LaneName, entries: Sequence[Entry]) -> Remove:
        """Remove messages of one lane."""
        return cls(lane.queue, entries, lane, sum(entry.size for entry in entries))


class Update(NamedTuple):
    """A message that stays, with other attempts or another due time."""

    queue: str
    entry: Entry
    due_ms: int | None
    expires_ms: int | None


Then = Callable[[StiQueueError | None, float, Wakes], Sequence[Queue]]
"""Applies a change that is safe, or was refused with an error; returns the queues that got ready messages.

Called with the engine's lock held, and with the time.
"""


@dataclass(slots=True)
class Change:
    """Inserts, removes and updates that are written together or not at all."""

    inserts: list[Insert] = field(default_factory=list)
    removes: list[Remove] = field(default_factory=list)
    updates: list[Update] = field(default_factory=list)
    request: tuple[str, str, int, int] | None = None
    """(queue, request id, first id, count) to remember."""
    policy: Policy | None = None
    """Settings of a queue or a pattern; if it sets nothing, they are forgotten."""
    then: Then | None = None
    """What the engine does once the change is safe or refused."""
    lazy: bool = False
    """Whether nobody waits for it, so that it may wait 50 ms for others."""
    tell: Callable[[StiQueueError | None], None] | None = None
    """Answers the caller, after `then` and without a lock: None once the change is safe, or why it was refused."""

    @property
    def size(self) -> int:
        """Bytes of its new messages."""
        return sum(insert.size for insert in self.inserts)


def telling(answer: Answer[T], value: T) -> Callable[[StiQueueError | None], None]:
    """Return a `Change.tell` that gives `answer` a value once the change is safe."""
    return lambda error: answer.set_result(value) if error is None else answer.set_exception(error)
