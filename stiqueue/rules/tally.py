"""The counters of one queue. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Tally:
    """The bytes of a queue, and totals since the start."""

    bytes: int = 0
    """Bodies and headers of all messages: ready, delayed and leased."""
    enqueued: int = 0
    acked: int = 0
    requeued: int = 0
    """Deliveries that were given back, by a consumer or because it ended."""
    expired: int = 0
    dead_lettered: int = 0
