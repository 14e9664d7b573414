"""How much of the messages with a key is in memory. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Iterator

from stiqueue.rules.lane import Window
from stiqueue.rules.places import Places
from stiqueue.rules.strand import Stored, Strand

KEY_MESSAGES, KEY_BYTES = 1_000, 1 << 20
"""How much of one key is in memory when a journal has the rest."""
PAGES = (200, 20, 1)
"""How many messages of a key are read at a time: when memory has room, when half of it is used, when it is full."""
AHEAD = 50
"""How many strands are read at a time when messages must be read first."""


class KeyWindow:
    """The messages of all strands that are in memory, and the strands of which the journal is to be asked for more."""

    def __init__(self, window: Window | None) -> None:
        """Start empty; `window` limits all strands together. None: no limit, all is in memory."""
        self._window = window
        self.messages = 0
        self.bytes = 0
        """Of their bodies and headers."""
        self._low: dict[Strand, None] = {}
        """Strands of which more is stored than was left in memory."""

    def is_full(self, strand: Strand) -> bool:
        """Whether further messages of `strand` are left to the journal."""
        window = self._window
        if window is None:
            return False
        if self.messages >= window.messages or self.bytes >= window.bytes:
            return True
        return strand.bytes >= KEY_BYTES or strand.in_memory >= KEY_MESSAGES

    def note_low(self, strand: Strand) -> None:
        """Have the journal asked for more of `strand`, which has stored messages, if little of it is in memory."""
        if strand.in_memory < PAGES[0] // 2:
            self._low[strand] = None

    def hungry(self, places: Places) -> Iterator[tuple[int, str, Stored, int]]:
        """Iterate over (priority, key, what is stored, how many) for which the journal is to be asked for more.

        `places` has the strands that are free: if the first must be read, others near it are read as well.
        """
        if self._window is None:
            return
        used = self.messages >= self._window.messages or self.bytes >= self._window.bytes
        half = self.messages >= self._window.messages // 2 or self.bytes >= self._window.bytes // 2
        page = PAGES[half + used]
        low, self._low = self._low, {}
        for strand in low:
            if strand.stored and not used:
                priority = max(strand.stored)
                if not strand.stored[priority].loading:
                    yield priority, strand.key, strand.stored[priority], page
        first = places.first()
        wanted = None if first is None else first[2].waits_for_load()
        if wanted is None or wanted[1].loading:
            return
        ahead = places.take(AHEAD)
        places.put_all(ahead)
        for _, _, strand in ahead:
            wanted = strand.waits_for_load()
            if wanted is not None and not wanted[1].loading:
                yield wanted[0], strand.key, wanted[1], page
