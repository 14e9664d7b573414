"""The unique keys of the messages in a queue. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations

from collections.abc import Collection

from stiqueue.rules.entry import Properties


class Uniques(dict[str, int]):
    """Message ids by unique key, from the moment at which a message is being written."""

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self._ends: dict[str, float] = {}
        """When unleased messages with a ttl expire, by unique key. The unique key is free then, although a message that
        only the journal has is removed later, when it is read."""

    def holder(self, unique_key: str, now: float, besides: Collection[int] = ()) -> int | None:
        """Return the id of the message that has a unique key; None if no message of the queue has it.

        Ignores the ids in `besides`, and a message that has expired.
        """
        found = self.get(unique_key)
        if found is None or found in besides or self._ends.get(unique_key, now + 1) <= now:
            return None
        return found

    def claim(self, message_id: int, properties: Properties) -> None:
        """Give a message that nobody holds its unique key."""
        unique_key, expires_at = properties.unique_key, properties.expires_at
        self[unique_key] = message_id
        if expires_at is not None:
            self._ends[unique_key] = expires_at
        else:
            self._ends.pop(unique_key, None)

    def put_back(self, message_id: int, properties: Properties) -> None:
        """Note that nobody holds a message any more, unless another message has its unique key by now."""
        if self.get(properties.unique_key) == message_id:
            self.claim(message_id, properties)

    def lease(self, message_id: int, properties: Properties) -> None:
        """Note that a message is leased: it does not expire meanwhile."""
        if self.get(properties.unique_key) == message_id:
            self._ends.pop(properties.unique_key, None)

    def free(self, message_id: int, properties: Properties) -> None:
        """Free the unique key of a message that has left the queue."""
        if self.get(properties.unique_key) == message_id:
            del self[properties.unique_key]
            self._ends.pop(properties.unique_key, None)
