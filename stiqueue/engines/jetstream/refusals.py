"""The errors of JetStream by number, and their translation."""

from __future__ import annotations

from stiqueue.engines.jetstream.answers import Refused
from stiqueue.errors import StiQueueError, StoreError, Unavailable

NAME_IN_USE = 10058
STREAM_NOT_FOUND = 10059
STORE_FAILED = 10077
NO_ROOM = {10023, 10047, 10122}
TOO_LARGE = 10054
NO_PEERS = 10005
NOT_YET = {NO_PEERS, 10008, 10009, 10074}
"""Errors of a cluster that lacks servers now: no peers, no leader, no cluster."""


def refusal(error: Refused) -> StiQueueError:
    """Translate a refusal of the cluster."""
    if error.number in NOT_YET:
        return Unavailable(f"the NATS cluster cannot do that now: {error}")
    return StoreError(f"the NATS cluster refuses: {error}")
