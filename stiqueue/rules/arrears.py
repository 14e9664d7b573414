"""Leases that ran out and still count against their stream. Not thread-safe: guarded by the engine's lock."""

from __future__ import annotations


class Arrears(dict[str, tuple[int, bool]]):
    """The leases of one stream that ran out: the bytes of each message, and whether the client had begun it.

    They count against the client's credit until it settles a lease in time, because it may be stuck. A late settlement
    shows that the client is alive and earns it one message on trial, so that a slow client gets fewer at a time.
    """

    __slots__ = ("begun", "trial")

    def __init__(self) -> None:
        """Start with none."""
        super().__init__()
        self.begun = 0
        """How many of these messages the client had begun."""
        self.trial: bool | None = None
        """None: nothing was settled late; True: one message may be given on trial; False: it was given."""

    @property
    def is_strict(self) -> bool:
        """Whether leases ran out and no message may be given on trial."""
        return bool(self) and not self.trial

    def room(self, prefetch: int, concurrency: int, held: int) -> int:
        """Return how many messages the stream may be given if it holds `held`."""
        if not self or (self.trial is None and self.begun < concurrency):
            return prefetch - held - len(self)
        return 1 if self.trial and not held else 0

    def add(self, lease_id: str, size: int, begun: bool) -> None:
        """Add a lease that ran out, with a message of `size` bytes."""
        self[lease_id] = (size, begun)
        self.begun += begun

    def take_back_trial(self) -> None:
        """Allow the message on trial again, because it was never sent."""
        if self.trial is False:
            self.trial = True

    def settle(self, lease_id: str) -> None:
        """Note that the client settled one of these leases too late."""
        size, begun = self[lease_id]
        self[lease_id] = (size, False)
        self.begun -= begun
        self.trial = True

    def forgive(self) -> int:
        """Forget all; return their bytes."""
        size = sum(size for size, _ in self.values())
        self.clear()
        self.begun, self.trial = 0, None
        return size
