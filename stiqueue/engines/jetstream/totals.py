"""The totals of a queue at one gateway since its start."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Totals:
    """The counters of one queue."""

    enqueued: int = 0
    acked: int = 0
    requeued: int = 0
    expired: int = 0
    dead_lettered: int = 0
