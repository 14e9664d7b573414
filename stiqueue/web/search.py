"""A search through the messages of a queue that ends, and says how far it came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.link import Link, Spot

MOST_LOOKED_AT = 20_000
"""Messages of one search."""
MOST_BYTES = 32 << 20
MOST_SECONDS = 2.0
MOST_FOUND = 50
BEGINNING = Spot(0)


@dataclass(frozen=True)
class Wanted:
    """What to look for: all that is given must fit."""

    text: str = ""
    """In the body, in any case of letters."""
    header: str = ""
    """The name of a header, and after a ``=`` a part of its value."""

    @property
    def is_empty(self) -> bool:
        """Whether everything fits."""
        return not (self.text or self.header)

    def fits(self, message: pb.Message) -> bool:
        """Whether a message has it."""
        if self.header:
            name, _, value = self.header.partition("=")
            if value.strip().lower() not in message.headers.get(name.strip(), "").lower():
                return False
            if name.strip() not in message.headers:
                return False
        return self.text.casefold() in message.body.decode(errors="replace").casefold()


@dataclass
class Found:
    """What a search found, and how far it looked."""

    messages: list[pb.PeekedMessage] = field(default_factory=list)
    looked_at: int = 0
    last: Spot | None = None
    """The last message looked at, from which a search can go on; None: it cannot, or looked at none."""
    is_over: bool = False
    """Whether it came to the end."""


async def search(link: Link, queue: str, state: int, wanted: Wanted, after: Spot = BEGINNING) -> Found:
    """Look for what is `wanted` among the messages behind `after`."""
    is_by_priority = state == pb.MESSAGE_STATE_READY
    if not after.id or not is_by_priority:
        after = Spot(after.id)
    found = Found()
    deadline, size = time.monotonic() + MOST_SECONDS, 0
    async for each in link.peek_all(queue, state, after, MOST_LOOKED_AT + 1):
        if (
            found.looked_at >= MOST_LOOKED_AT
            or len(found.messages) >= MOST_FOUND
            or size > MOST_BYTES
            or time.monotonic() > deadline
        ):
            return found
        found.looked_at += 1
        if state != pb.MESSAGE_STATE_DELAYED:  # they come in the order of their times
            found.last = Spot(each.message.id, each.message.priority if is_by_priority else None)
        size += each.ByteSize()
        if wanted.fits(each.message):
            found.messages.append(each)
    found.is_over = True
    return found
