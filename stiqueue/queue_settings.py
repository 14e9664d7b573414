"""The settings of queues: what an operator sets while the server runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """The settings of one queue, or of all queues whose names match a pattern. None: not set here.

    For each setting a queue has the value of the most specific name or pattern that sets it, else the server's default.
    """

    queue: str = "default"
    """A queue's name, or a pattern in which ``*`` stands for any characters."""
    paused: bool | None = None
    """Whether the queue delivers nothing; it still takes messages and settlements."""
    resume_after: float | None = None
    """With `paused`: the seconds after which the queue goes on by itself. None: not before it is resumed."""
    max_attempts: int | None = None
    """Deliveries before a message moves to the dead letter queue; 0: no limit."""
    max_messages: int | None = None
    """The most messages in the queue; 0: no limit."""
    max_bytes: int | None = None
    """The most bytes of bodies and headers in the queue; 0: no limit."""
    ack_timeout: float | None = None
    """Seconds until an unsettled message is given back, for consumers that do not say themselves; 0: never."""
    ttl: float | None = None
    """The ttl in seconds of messages that are enqueued without one; 0: for ever."""
    max_leased: int | None = None
    """The most messages that all consumers together may hold; 0: no limit."""
    dead_letter_queue: str | None = None
    """The queue for dead letters; empty: ``<queue>.dead``."""

    def items(self) -> Iterator[tuple[str, Any]]:
        """Iterate over the names and values of the settings that are set, `resume_after` left out."""
        for name in SETTINGS:
            value = getattr(self, name)
            if value is not None:
                yield name, value

    def __bool__(self) -> bool:
        """Whether anything is set."""
        return any(True for _ in self.items())

    def __str__(self) -> str:
        """Return the settings in one line, for people."""
        texts = [f"{name} {_shown(name, value)}" for name, value in self.items()]
        if self.paused and self.resume_after is not None:
            texts[0] += f" for {self.resume_after:.{0 if self.resume_after >= 10 else 3}f} s"
        return ", ".join(texts) or "nothing"


SETTINGS = tuple(field.name for field in fields(QueueSettings) if field.name not in ("queue", "resume_after"))
"""The names of all settings; `resume_after` belongs to `paused`."""


class SettingsReport(NamedTuple):
    """What a server answers about settings."""

    settings: Sequence[QueueSettings]
    """Those made while it runs, by name or pattern: all, or those that match the queue."""
    fixed: Sequence[QueueSettings]
    """Those of the server's settings file."""
    effective: QueueSettings | None
    """The settings that apply to the queue, every one set; None if no queue was named."""


def nought(name: str) -> str:
    """Return what 0 means as the value of a setting."""
    return {"ack_timeout": "never", "ttl": "for ever"}.get(name, "no limit")


def _shown(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value == 0:
        return nought(name)
    return f"{value:g}" if isinstance(value, float) else str(value) or '""'
