"""The open streams of a server: their limit, their tokens, and the end of the last one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from stiqueue.errors import TooManyConsumers
from stiqueue.server.access.guard import Guard
from stiqueue.server.access.tokens import Grant


class Stream(Protocol):
    """A call that stays open."""

    def stop(self, now: bool = False) -> None:
        """End the stream once everything under way is settled, or `now`."""
        ...


class Streams:
    """Open streams of one kind. Not thread-safe: used by the event loop."""

    def __init__(self, kind: str, most: int, guard: Guard | None) -> None:
        """Allow `most` streams; `kind` names them in errors, and `guard` gives the token of each."""
        self._kind = kind
        self._most = most
        self._guard = guard
        self._open: dict[Stream, Grant | None] = {}
        self.none = asyncio.Event()
        """Set while no stream is open."""
        self.none.set()

    def check_room(self) -> None:
        """Raise `TooManyConsumers` if the limit is reached."""
        if len(self._open) >= self._most:
            raise TooManyConsumers(f"there are {len(self._open):,} {self._kind}, the limit (max_consumers)")

    @contextmanager
    def entered(self, stream: Stream) -> Iterator[None]:
        """Count `stream` as open inside the `with` block. Called in its own call, whose token it notes."""
        self._open[stream] = self._guard.current() if self._guard is not None else None
        self.none.clear()
        try:
            yield
        finally:
            del self._open[stream]
            if not self._open:
                self.none.set()

    def stop(self, now: bool = False) -> None:
        """Stop all streams."""
        for stream in list(self._open):
            stream.stop(now)

    def end_revoked(self) -> None:
        """End streams whose tokens were removed or changed."""
        assert self._guard is not None
        for stream, grant in list(self._open.items()):
            if grant is None or not self._guard.tokens.valid(grant):
                stream.stop(now=True)


class AllStreams:
    """The open streams of a server: `Deq` streams and pipes, each kind with its own limit."""

    def __init__(self, most: int, guard: Guard | None) -> None:
        """Allow `most` streams of each kind (`max_consumers`)."""
        self.deliveries = Streams("consumers", most, guard)
        self.pipes = Streams("pipes", most, guard)

    def end_revoked(self) -> None:
        """End streams whose tokens were removed or changed; their messages go back."""
        self.deliveries.end_revoked()
        self.pipes.end_revoked()
