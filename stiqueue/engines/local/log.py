"""The log of an engine: the port through which it keeps its messages somewhere safer than memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from stiqueue.engines.local.change import Change, LaneName
from stiqueue.errors import StiQueueError
from stiqueue.message import Durability
from stiqueue.rules.entry import Entry
from stiqueue.rules.policies import Policy
from stiqueue.rules.run import Run

Outcome = Callable[[Sequence[Change], StiQueueError | None], None]
"""Called on the log's thread with changes that are safe (None), or that were refused with an error."""
Failed = Callable[[StiQueueError], None]
"""Called on the log's thread when nothing can be written any more."""

Found = Callable[[Sequence[int], list[Entry]], None]

KeptRequest = tuple[str, str, int, int]
"""(queue, request id, first id, count) of a request whose repetition enqueues nothing."""


class KeptLane(NamedTuple):
    """The messages of one lane that a log has."""

    name: LaneName
    ready: int
    """How many have no due time."""
    bytes: int
    """Bytes of bodies and headers, those with a due time included."""
    last_id: int
    edge: int = 0
    """Of a lane with a key: all messages have ids above this one."""


class KeptUnique(NamedTuple):
    """A message with a unique key that a log has."""

    queue: str
    id: int
    unique_key: str
    expires_ms: int | None


@dataclass(slots=True)
class Kept:
    """The content of a log when it is opened."""

    lanes: list[KeptLane] = field(default_factory=list)
    floor: int = 0
    """The highest id of all queues that are no longer there."""
    delayed: list[tuple[str, int, Entry]] = field(default_factory=list)
    """(queue, due time in milliseconds by the wall clock, message). Negative: it was given back, and holds its key."""
    requests: list[KeptRequest] = field(default_factory=list)
    policies: list[Policy] = field(default_factory=list)
    """Settings of queues and patterns."""
    unique: list[KeptUnique] = field(default_factory=list)


class Log(Protocol):
    """Where an engine writes its changes. `append`, `read` and `find` are thread-safe and do not block."""

    @property
    def name(self) -> str:
        """Its name in error texts."""
        ...

    @property
    def durability(self) -> Durability:
        """How safe a change is once its outcome is known."""
        ...

    @property
    def description(self) -> str:
        """Where it is, for people."""
        ...

    @property
    def is_ours(self) -> bool:
        """Whether this process opened it; False in a fork."""
        ...

    def open(self, outcome: Outcome, failed: Failed) -> Kept:
        """Open it and return what it has.

        Raises:
            StoreError: it cannot be used.
        """
        ...

    def check(self, lane: LaneName) -> None:
        """Check that it can take a new message of that lane.

        Raises:
            DiskFull: the disk is full.
            LimitReached: it has too many queues with too many priorities and keys.
            Unavailable: this process is a fork of the one that opened it.
        """
        ...

    def append(self, change: Change) -> None:
        """Write `change` after all earlier ones."""
        ...

    def read(self, lane: LaneName, after_id: int, limit: int, done: Callable[[list[Run]], None]) -> None:
        """Read up to `limit` messages with greater ids and no due time; call `done` with them on the log's thread."""
        ...

    def find(self, queue: str, ids: Sequence[int], done: Found) -> None:
        """Read messages of a queue by their ids, those without a due time, up to about 4 MiB; call `done` with them.

        `done` is called on the log's thread with the ids that were looked for and the messages that are there.
        """
        ...

    def close(self) -> None:
        """Write everything appended, and close it. Does nothing in a fork."""
        ...
