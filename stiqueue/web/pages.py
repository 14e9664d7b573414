"""Pages of messages, forwards and backwards, at a cost that does not grow with the queue.

`Peek` goes forwards only: up to N messages behind a place. Ids rise by one with each message of a queue, so a window of
W ids has at most W messages. To go back, a window below the page is widened until it holds a page.

Ready messages are delivered priority by priority, so each priority is a lane of its own. Leased messages come in the
order of ids, as one lane. Delayed messages come in the order in which they become ready, so ids are no way through
them: `SCANNED` of them are read at once, and paged here. So is a queue of a few messages, which takes one question,
unless they are too large for one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from stiqueue.limits import MAX_PRIORITY
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.link import Link, Spot

SIZE = 50
"""Messages on a page."""
FEW = 100
"""Up to how many messages are read at once."""
SCANNED = 1_000
"""The same for delayed messages."""
WIDEST = 500
"""Most messages of one question on the way back."""
MOST_QUESTIONS = 80
"""Far more than it takes to halve every gap between 64-bit ids."""
MOST_LANES = 16
"""Priorities whose newest messages are shown together."""


@dataclass
class Page:
    """Some messages of one state, in the order shown, and whether there are more."""

    messages: list[pb.PeekedMessage] = field(default_factory=list)
    has_next: bool = False
    """Whether messages follow the last one."""
    has_previous: bool = False
    """Whether messages come before the first one. Perhaps they are gone when somebody asks."""
    note: str = ""
    """What the page leaves out."""


class Pager:
    """Finds pages of one state of one queue."""

    def __init__(self, link: Link, queue: str, state: int, total: int, newest: bool = False) -> None:
        """Look by `link`; the `queue` has about `total` messages of this `state`; with `newest` those come first."""
        self._link = link
        self._queue = queue
        self._state = state
        self._total = total
        self._newest_first = newest
        self._questions = 0

    async def start(self) -> Page:
        """Return the first page."""
        if (page := await self._at_once(None, True)) is not None:
            return page
        if self._newest_first:
            return await self._newest(None)
        return Page(*await self._above(Spot(0, None)))

    async def after(self, spot: Spot) -> Page:
        """Return the page that follows the message at `spot` in the order shown."""
        if (page := await self._at_once(spot.id, True)) is not None:
            return page
        if self._newest_first:
            return await self._newest(spot.id)
        found, more = await self._above(self._in_lane(spot))
        return Page(found, more, True)

    async def before(self, spot: Spot) -> Page:
        """Return the page that comes before the message at `spot` in the order shown."""
        if (page := await self._at_once(spot.id, False)) is not None:
            return page
        if self._newest_first:
            return await self._newer(spot.id) or await self.start()
        spot = self._in_lane(spot)
        found, is_first = await self._below(spot)
        highest = 0
        while is_first and len(found) < SIZE and (higher := await self._lane_above(spot.priority)) is not None:
            highest = highest or await self._highest()
            spot = Spot(highest + 1, higher)
            earlier, is_first = await self._below(spot)
            found = [*earlier, *found]
        if not found:
            return await self.start()
        is_first = is_first and len(found) <= SIZE and await self._lane_above(spot.priority) is None
        return Page(found[-SIZE:], True, not is_first)

    def _in_lane(self, spot: Spot) -> Spot:
        return spot if self._state == pb.MESSAGE_STATE_READY else Spot(spot.id, None)

    async def _at_once(self, message_id: int | None, is_after: bool) -> Page | None:
        """Return a part of what is read at once: after or before a message; None: there is more than can be."""
        is_delayed = self._state == pb.MESSAGE_STATE_DELAYED
        if self._total > FEW and not is_delayed:
            return None
        most = SCANNED if is_delayed else FEW
        self._questions += 1
        looked = await self._link.peek(self._queue, self._state, Spot(0, None), most + 1)
        is_all = not looked.is_cut and len(looked.messages) <= most
        if not (is_all or is_delayed):
            return None
        known = looked.messages[:most]
        note = (
            "" if is_all else f"These are among the {len(known):,} that will become ready next; no page has the others."
        )
        if self._newest_first:
            known.sort(key=lambda m: -m.message.id)
        # A message that is gone was at the beginning: whatever was before it is gone too, or soon will be.
        at = next((at for at, m in enumerate(known) if m.message.id == message_id), None)
        start = 0 if at is None else at + 1 if is_after else max(0, at - SIZE)
        end = start + SIZE if is_after or at is None else at
        return Page(known[start:end], end < len(known), start > 0, note)

    # -- the newest, of all lanes together ----------------------------------------------------------------------------

    async def _newest(self, below_id: int | None) -> Page:
        """Return the newest messages, all or those below an id."""
        has_previous = below_id is not None
        if below_id is None:
            lanes, highest = await asyncio.gather(self.lanes(MOST_LANES), self._highest())
            below_id = highest + 1
        else:
            lanes = await self.lanes(MOST_LANES)
        parts = await asyncio.gather(*(self._below(Spot(below_id, each)) for each in lanes[:MOST_LANES]))
        # A lane of large messages has fewer than a page of them: nothing older than those of it is on this page.
        floor = max((part[0].message.id for part, is_first in parts if part and not is_first), default=0)
        found = sorted((m for part, _ in parts for m in part if m.message.id >= floor), key=lambda m: -m.message.id)
        is_last = len(found) <= SIZE and all(is_first for _, is_first in parts)
        return self._noted(Page(found[:SIZE], not is_last, has_previous), lanes)

    async def _newer(self, above_id: int) -> Page | None:
        """Return the page of messages just above an id, the newest first; None: they are gone."""
        lanes = await self.lanes(MOST_LANES)
        parts = await asyncio.gather(*(self._lane_part(Spot(above_id, each)) for each in lanes[:MOST_LANES]))
        ceiling = min((part[-1].message.id for part, is_all in parts if part and not is_all), default=None)
        found = sorted(
            (m for part, _ in parts for m in part if ceiling is None or m.message.id <= ceiling),
            key=lambda m: m.message.id,
        )
        more = len(found) > SIZE or not all(is_all for _, is_all in parts)
        return self._noted(Page(found[:SIZE][::-1], True, more), lanes) if found else None

    async def _lane_part(self, spot: Spot) -> tuple[list[pb.PeekedMessage], bool]:
        """Return the first messages of a lane behind a place, up to a page and one more; whether they are all."""
        asked, is_all = await self._ask(spot, SIZE + 1)
        part = [m for m in asked if _is_in(spot.priority, m)]
        return part, is_all or len(part) < len(asked)

    def _noted(self, page: Page, lanes: list[int | None]) -> Page:
        if len(lanes) > MOST_LANES:
            page.note = (
                f"These are the newest of the {MOST_LANES} highest priorities. "
                f"To reach priority {lanes[MOST_LANES]} and below, show the next first."
            )
        return page

    # -- lanes --------------------------------------------------------------------------------------------------------

    async def lanes(self, most: int = MAX_PRIORITY) -> list[int | None]:
        """Return the priorities of the messages, the highest first, up to `most` and one more."""
        if self._state != pb.MESSAGE_STATE_READY:
            return [None]
        lanes: list[int | None] = []
        lane = await self._lane_from(MAX_PRIORITY)
        while lane >= 0:
            lanes.append(lane)
            lane = await self._lane_from(lane - 1) if lane and len(lanes) <= most else -1
        return lanes

    async def _lane_above(self, priority: int | None) -> int | None:
        """Return the next priority above one that has messages; None: there is none."""
        if priority is None:
            return None
        low, high = priority + 1, await self._lane_from(MAX_PRIORITY)
        if high < low:
            return None
        while low < high:
            middle = (low + high) // 2
            lane = await self._lane_from(middle)
            low, high = (low, lane) if lane > priority else (middle + 1, high)
        return high

    async def _lane_from(self, priority: int) -> int:
        """Return the highest priority up to one that has messages; -1: there is none."""
        first, _ = await self._ask(Spot(0, priority), 1)
        return first[0].message.priority if first else -1

    async def _ask(self, spot: Spot, limit: int) -> tuple[list[pb.PeekedMessage], bool]:
        """Return up to `limit` messages behind a place, and whether they are all there are."""
        self._questions += 1
        looked = await self._link.peek(self._queue, self._state, spot, limit)
        return looked.messages, len(looked.messages) < limit and not looked.is_cut

    async def _above(self, spot: Spot) -> tuple[list[pb.PeekedMessage], bool]:
        """Return the first messages behind a place, up to a page, and whether there are more."""
        found, is_all = await self._ask(spot, SIZE + 1)
        return found[:SIZE], len(found) > SIZE or not is_all

    async def _below(self, spot: Spot) -> tuple[list[pb.PeekedMessage], bool]:
        """Return the last messages of a lane below a place, up to a page, and whether none of it come before them."""
        width, narrow, wide = SIZE + 1, 0, 0
        found: list[pb.PeekedMessage] = []
        for _ in range(MOST_QUESTIONS):
            start = max(0, spot.id - 1 - width)
            asked, is_all = await self._ask(Spot(start, spot.priority), min(width, WIDEST) + 1)
            window = [m for m in asked if m.message.id < spot.id and _is_in(spot.priority, m)]
            # Read to its end, if nothing is left or something behind it was seen.
            if is_all or len(window) < len(asked):
                found, narrow = window, width
                if len(window) > SIZE or start == 0:
                    return window[-SIZE:], len(window) <= SIZE
            else:
                wide = width
            if wide and wide - narrow <= 1:
                break  # a window of one more id holds more than can be read at once
            width = (narrow + wide) // 2 if wide else 2 * width
        return found, False

    async def _highest(self) -> int:
        """Return the highest id of all lanes; 0 if there is no message."""
        first, _ = await self._ask(Spot(0, None), 1)
        if not first:
            return 0
        # That many messages have at least that many ids; mostly there is no gap, and the last of them is the highest.
        low = first[0].message.id
        if self._total > 1:
            beyond, _ = await self._ask(Spot(low + self._total - 2, None), 1)
            low = beyond[0].message.id if beyond else low
        step = 1
        while self._questions < MOST_QUESTIONS and (beyond := (await self._ask(Spot(low + step - 1, None), 1))[0]):
            low, step = beyond[0].message.id, step * 2
        high = low + step - 1
        while low < high and self._questions < MOST_QUESTIONS:
            middle = (low + high) // 2
            beyond, _ = await self._ask(Spot(middle, None), 1)
            low, high = (beyond[0].message.id, max(high, beyond[0].message.id)) if beyond else (low, middle)
        return low


def _is_in(lane: int | None, message: pb.PeekedMessage) -> bool:
    return lane is None or message.message.priority == lane
