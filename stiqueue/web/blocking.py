"""Which message blocks a key: the one that a consumer holds, or that was given back with a delay."""

from __future__ import annotations

from collections.abc import Iterable

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.link import Link, Spot

LOOKED_THROUGH = 1_000
"""Leased messages, and as many delayed ones, among which a blocking message is found."""


async def blockers(link: Link, queue: str, messages: Iterable[pb.PeekedMessage]) -> dict[str, pb.PeekedMessage]:
    """Return the blocking message of each key of which one of `messages` is blocked, as far as it is found."""
    wanted = {each.message.key for each in messages if each.blocked}
    found: dict[str, pb.PeekedMessage] = {}
    for state in (pb.MESSAGE_STATE_LEASED, pb.MESSAGE_STATE_DELAYED):
        if wanted <= found.keys():
            break
        for each in (await link.peek(queue, state, Spot(0), LOOKED_THROUGH)).messages:
            # A message that waits out the delay it was enqueued with blocks nothing.
            if each.message.key in wanted and (state == pb.MESSAGE_STATE_LEASED or each.message.attempt):
                found.setdefault(each.message.key, each)
    return found
