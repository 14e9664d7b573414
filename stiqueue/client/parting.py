"""How streams end when their client closes."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from stiqueue.client.transport import Stream, Transport
from stiqueue.message import Outcome, Settlement


class Parting(NamedTuple):
    """Instructions to the server: how to settle the leases of streams that end."""

    acked: list[str]
    back: list[str]
    """Leases to give back, each counted as an attempt."""
    names: list[str]
    """Leases that identify the streams. All other messages of these streams go back as untouched."""

    async def tell(self, transport: Transport, seconds: float) -> None:
        """Settle so, and let the streams end.

        Raises:
            StiQueueError: the server did not answer within `seconds`, or refused.
        """
        if self.acked:
            await transport.settle(Settlement(self.acked, close_stream=True), seconds)
        if self.back:
            await transport.settle(Settlement(self.back, Outcome.REQUEUE, close_stream=True), seconds)
        if self.names:
            untouched = Settlement(self.names, Outcome.REQUEUE, close_stream=True, untouched=True)
            await transport.settle(untouched, seconds)


class Departing(Protocol):
    """The leases of a stream of `deq`: `Holding`, as far as a session uses it."""

    stream: Stream

    def part(self, ack: bool) -> Parting:
        """Give up all leases; return how the server is to settle them."""
        ...

    def forget(self) -> None:
        """Give up all leases."""
        ...

    async def flush(self, seconds: float) -> None:
        """Wait for the answers to acks in the background."""
        ...
