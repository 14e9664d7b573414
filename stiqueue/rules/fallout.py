"""Messages that left a queue by themselves, or came back to it. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from dataclasses import dataclass, field

from stiqueue.rules.entry import Entry


@dataclass(slots=True)
class Fallout:
    """Messages that expired, died or came back since the engine last looked, for it to record and to move."""

    expired: list[Entry] = field(default_factory=list)
    dead: list[tuple[Entry, str]] = field(default_factory=list)
    """(message, reason) to move to the dead letter queue."""
    returned: list[tuple[Entry, float | None]] = field(default_factory=list)
    """(message, when it is ready or None) that were given back; they stay in the queue, and the log must know."""

    def __bool__(self) -> bool:
        return bool(self.expired or self.dead or self.returned)

    def take(self) -> Fallout:
        """Return a copy, and start empty again."""
        taken = Fallout(self.expired, self.dead, self.returned)
        self.expired, self.dead, self.returned = [], [], []
        return taken
