"""The ready messages of one queue, by priority. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from stiqueue.rules.entry import Entry
from stiqueue.rules.lane import Lane, Window
from stiqueue.rules.lease import Owner


class Lanes(dict[int, Lane]):
    """A lane for each priority, the highest first."""

    def __init__(self, window: Window | None) -> None:
        """Start empty; `window` limits how much of each lane is in memory (None: no limit)."""
        super().__init__()
        self.window = window

    @property
    def messages(self) -> int:
        """How many messages the lanes have, in memory or stored."""
        return sum(map(len, self.values()))

    @property
    def stored(self) -> bool:
        """Whether the log has ready messages that memory does not have."""
        return any(lane.stored for lane in self.values())

    def open(self, priority: int) -> Lane:
        """Return the lane of a priority; create it if it does not exist."""
        lane = self.get(priority)
        if lane is None:
            lanes = sorted([*self.items(), (priority, lane := Lane())], reverse=True)
            self.clear()
            self.update(lanes)
        return lane

    def put_back(self, entry: Entry) -> None:
        """Put a message at its place by id, before all newer ones of its priority."""
        self.open(entry.properties.priority).returned.push(entry)

    def find(self, message_id: int) -> Entry | None:
        """Return a message in memory by its id, or None."""
        return next((entry for lane in self.values() if (entry := lane.get(message_id)) is not None), None)

    def is_stored(self, message_id: int) -> bool:
        """Whether a message is in the log alone, if anywhere."""
        return any(lane.is_stored(message_id) for lane in self.values())

    def remove_spent(self, attempts: int) -> list[Entry]:
        """Remove and return the messages in memory that had `attempts` deliveries or more."""
        return [entry for lane in self.values() for entry in lane.remove_spent(attempts)]

    def has_head(self) -> bool:
        """Whether the next message is in memory."""
        return self.head() is not None

    def next(self) -> tuple[int, int] | None:
        """Return where the next message stands: the negative of its priority, its id or one below it; None: nowhere."""
        for priority, lane in self.items():
            if len(lane):
                head = lane.head()
                return -priority, lane.edge + 1 if head is None else head.id
        return None

    def head(self) -> Entry | None:
        """Return the next message; None when there is none, or when it must be loaded first."""
        return next((lane.head() for lane in self.values() if len(lane)), None)

    def pop(self, head: Entry) -> None:  # type: ignore[override]  # a dictionary's takes a key
        """Remove `head`, which `head()` just returned."""
        self[head.properties.priority].pop(head)

    def hungry(self) -> Iterator[tuple[int, Lane]]:
        """Iterate over the (priority, lane) for which it is time to read a page from the log."""
        for priority, lane in self.items():
            if lane.stored and not lane.loading and self.window is not None and self.window.is_low(lane):
                yield priority, lane

    def take(
        self, owner: Owner, limit: int, limit_bytes: int, now: float, dropped: Callable[[Entry, float], bool] | None
    ) -> tuple[list[Entry], int]:
        """Remove the next messages, as many as the credit of `owner`, `limit` and `limit_bytes` allow.

        Args:
            owner: who gets them.
            limit: how many at most.
            limit_bytes: how many bytes at most; a message that is above it is taken alone.
            now: the time.
            dropped: drops a message that expired, and returns whether it did; None: no message has a ttl.

        Returns:
            The messages, and their bytes.
        """
        taken: list[Entry] = []
        used = 0
        most = int(min(limit, owner.room(), owner.left))
        for lane in self.values():
            if not lane.returned:
                entries, size = lane.take(most - len(taken), min(limit_bytes, owner.bytes_left) - used)
                if dropped:
                    entries = [entry for entry in entries if not dropped(entry, now)]
                    size = sum(entry.size for entry in entries)
                taken += entries
                used += size
            # The rest: returned messages, or one that is larger than the limit and goes alone.
            while len(taken) < most:
                entry = lane.head()
                if entry is None:
                    break
                size = entry.size
                if used + size > limit_bytes and taken:
                    return taken, used
                if used + size > owner.bytes_left and (taken or owner.held or owner.arrears.is_strict):
                    return taken, used
                lane.pop(entry)
                if dropped and dropped(entry, now):
                    continue
                used += size
                taken.append(entry)
            if len(taken) >= most or lane.stored:
                break
        return taken, used
