"""How many messages a damaged data file has lost, as far as it is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Loss:
    """The unreadable messages, as far as the file and its mark reveal.

    `check`, `salvage` and a start that accepts the loss report it in the same words.
    """

    messages: int = 0
    """Messages that the file counts but that are unreadable."""
    transactions: int | None = 0
    """Confirmed transactions after the last readable one; None: the number of confirmed transactions is unknown."""
    counted: bool = True
    """Whether the counters of all queues are readable."""

    @property
    def is_exact(self) -> bool:
        """Whether `messages` is the whole loss."""
        return self.counted and self.transactions == 0

    @property
    def row(self) -> dict[str, int | bool | None]:
        """The loss as a row for scripts."""
        return {"lost": self.messages, "lost_is_exact": self.is_exact, "missing_transactions": self.transactions}

    @property
    def words(self) -> str:
        """The loss in words, to follow the number of readable messages."""
        known = f"{self.messages:,} {'is' if self.messages == 1 else 'are'} lost"
        if self.is_exact:
            return known if self.messages else "none is lost"
        start = f"at least {known}, how many more" if self.messages else "how many are lost"
        return f"{start} is not known: {self._reason}"

    @property
    def _reason(self) -> str:
        """Why the exact number of lost messages is unknown."""
        if not self.counted:
            return "the counters of some queues cannot be read"
        if self.transactions is None:
            return "without its mark nothing tells whether later transactions are missing"
        if self.transactions == 1:
            return "the last confirmed transaction is missing"
        return f"the last {self.transactions:,} confirmed transactions are missing"
