"""What becomes of leases when they are settled, and whose they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from stiqueue.lease import Lease, Owner
from stiqueue.message import Outcome, Settlement
from stiqueue.pending import Pending

Settle = Callable[[Pending, Owner, list[Lease]], int | None]
"""What becomes of the leases of one owner; returns the bytes of their messages, if these are done."""

_LEASE_OWNER = itemgetter(2)


@dataclass(slots=True)
class Settled:
    """Leases of one queue that were settled together."""

    leases: list[Lease] = field(default_factory=list)
    size: int = 0
    """Bytes of their messages, if these are done."""


def by_owner(leases: Sequence[Lease]) -> Iterable[tuple[Owner, list[Lease]]]:
    """Group leases by their owners, each one's in their order."""
    owners = dict.fromkeys(map(_LEASE_OWNER, leases))
    if len(owners) == 1:  # as it usually is; a thousand at a time are not looked at one by one
        return [(next(iter(owners)), list(leases))]
    groups: dict[Owner, list[Lease]] = {owner: [] for owner in owners}
    for lease in leases:
        groups[lease.owner].append(lease)
    return groups.items()


def missing(lease_ids: Sequence[str], leases: Iterable[Lease]) -> list[str]:
    """Return those of `lease_ids` that are not of `leases`, each once."""
    found = {lease.lease_id for lease in leases}
    return [lease_id for lease_id in dict.fromkeys(lease_ids) if lease_id not in found]


def settler(settlement: Settlement, now: float) -> Settle:
    """Return what `settlement` does to the leases of one owner."""
    if settlement.outcome is Outcome.EXTEND:
        deadline = now + settlement.delay
        return lambda pending, owner, leases: pending.extend(leases, deadline)
    if settlement.outcome is Outcome.REQUEUE:
        due = now + settlement.delay if settlement.delay else None
        return lambda pending, owner, leases: pending.give_back(owner, leases, now, due)
    if settlement.outcome is Outcome.DEAD_LETTER:
        reason = settlement.reason or "rejected"
        return lambda pending, owner, leases: pending.dead_letter(owner, leases, reason)
    return Pending.ack
