"""The functions that settle leases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from stiqueue.message import Outcome, Settlement
from stiqueue.rules.backlog import Backlog
from stiqueue.rules.lease import Lease, Owner

Settle = Callable[[Backlog, Owner, list[Lease]], int | None]
"""Settles leases of one owner; returns the bytes of their messages, if these are done."""


@dataclass(slots=True)
class Settled:
    """Leases of one queue that were settled together."""

    leases: list[Lease] = field(default_factory=list)
    size: int = 0
    """Bytes of their messages, if these are done."""
    keyed: bool = False
    """Whether some of their messages may have a key."""


def way_of(settlement: Settlement, now: float) -> Settle:
    """Return the function that applies `settlement` to the leases of one owner."""
    if settlement.outcome is Outcome.EXTEND:
        deadline = now + settlement.delay
        return lambda backlog, owner, leases: backlog.in_flight.extend(leases, deadline)
    if settlement.outcome is Outcome.REQUEUE:
        due = now + settlement.delay if settlement.delay else None
        untouched = settlement.untouched
        return lambda backlog, owner, leases: backlog.give_back(owner, leases, now, due, untouched)
    if settlement.outcome is Outcome.DEAD_LETTER:
        reason = settlement.reason or "rejected"
        return lambda backlog, owner, leases: backlog.dead_letter(owner, leases, reason)
    return Backlog.ack
