"""What a client has open, and how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from typing import Any, Generic, Protocol, TypeVar

from stiqueue import exits
from stiqueue.backoff import Backoff
from stiqueue.concurrency import Concurrency, Own, Signal
from stiqueue.errors import Closed, StiQueueError, Unavailable
from stiqueue.message import Message, Settlement
from stiqueue.options import Options
from stiqueue.tracing import Tracing, find_tracing
from stiqueue.transport import Stream, Transport

CLOSE_SECONDS = 5.0
"""How long closing waits for an absent server; by then it has given back what was held."""

M = TypeVar("M", bound=Message)


class Held(Protocol):
    """The stream of a `deq`, and the message whose lease it holds."""

    stream: Stream
    message: Any
    """The `Message` that is not settled yet, or None. Guarded by the session's lock."""


class Session(Generic[M]):
    """One client's connection to its queues, made on first use, and everything that is open on it.

    Thread-safe. May be used on both sides of a `fork`.
    """

    def __init__(
        self,
        options: Options,
        concurrency: Concurrency,
        message: type[M],
        make_transport: Callable[[Options, Concurrency], Transport],
    ) -> None:
        """Remember how to connect; nothing is opened."""
        self.options = options
        self.concurrency = concurrency
        self.message = message
        """The class of messages that are delivered."""
        self.is_closed = False
        self.lock = threading.Lock()
        """Protects `transport`, `held`, `streams` and the `message` of each of `held`."""
        self._make_transport = make_transport
        self._forget()

    def _forget(self) -> None:
        """Start with nothing open: in a new client, after `disconnect` and after a `fork`."""
        self.transport: Transport | None = None
        self.home: object = None
        """Where the transport belongs to: an event loop, or nothing."""
        self.held: set[Held] = set()
        """The streams of `deq`, of all threads or tasks."""
        self.streams: set[Stream] = set()
        """The streams of `consume`."""
        self.own: Own[Any] = self.concurrency.own(self.drop)
        """The `Held` of the current thread's or task's next `deq`."""
        self.interrupted: Signal = self.concurrency.signal()
        """Set when what is under way is to end because the client is closed."""

    @cached_property
    def tracing(self) -> Tracing | None:
        """What makes spans of messages; looked for once, at the first use of the client."""
        return find_tracing()

    def connected(self) -> Transport:
        """Return the transport, made on first use."""
        transport = self.transport
        if transport is not None and not self.concurrency.has_moved(self.home):
            return transport
        with self.lock:
            self.raise_if_closed()
            if self.transport is not None and self.concurrency.has_moved(self.home):
                self._abandon()
            if self.transport is None:
                self.transport = self._make_transport(self.options, self.concurrency)
                self.home = self.concurrency.home()
                self.concurrency.settle(self.disconnect)
                exits.watch(self)
            return self.transport

    def _abandon(self) -> None:
        """Give up, with the lock held, what belongs to an event loop that has ended without closing it."""
        for stream in [*self.streams, *(held.stream for held in self.held)]:
            with suppress(RuntimeError):  # of what would have to be told to that loop
                stream.cancel()
        self._forget()

    def raise_if_closed(self) -> None:
        """Raise `Closed` if the client was closed for good."""
        if self.is_closed:
            raise Closed("the client was closed")

    def drop(self, held: Held) -> None:
        """End the stream of a `deq`; what it still holds goes back."""
        with self.lock:
            self.held.discard(held)
        held.stream.cancel()

    async def pause(self, backoff: Backoff, error: Unavailable, stream: Stream, began: float) -> None:
        """Wait before `stream`, opened at `began`, is opened anew; raise `error` when the server was away too long."""
        self.raise_if_closed()
        if await stream.connected():  # until just now
            backoff.reset()
            began = time.monotonic()
        await backoff.pause(error, self.interrupted, began)

    async def disconnect(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the connections; the next call connects again."""
        await self.end(ack=True, seconds=min(self.options.timeout, CLOSE_SECONDS))

    async def close(self, ack: bool = True) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice."""
        self.is_closed = True
        await self.end(ack, seconds=min(self.options.timeout, CLOSE_SECONDS))

    async def end(self, ack: bool, seconds: float) -> None:
        """Ack or give back what `deq` returned, end all streams, close the connections.

        Args:
            ack: ack it (with `auto_ack`), or give it back.
            seconds: how long to wait for an absent server; what could not be acked is delivered again.
        """
        with self.lock:
            if self.transport is not None and self.concurrency.has_moved(self.home):
                self._abandon()
            transport, slots, streams, interrupted = self.transport, self.held, self.streams, self.interrupted
            ack = ack and self.options.auto_ack
            held = [slot.message.lease_id for slot in slots if slot.message is not None] if ack else []
            self._forget()
        interrupted.set()
        if transport is None:
            return
        try:
            if held:
                # Closing the streams as well: nothing more is to be delivered on them.
                await transport.settle(Settlement(held, close_stream=True), seconds)
        except StiQueueError as error:
            self.options.logger.warning("could not ack %d messages, they are delivered again: %s", len(held), error)
        finally:
            for stream in [*streams, *(slot.stream for slot in slots)]:
                stream.cancel()
            await transport.close()

    def end_at_exit(self, ack: bool, seconds: float) -> None:
        """Do what `end` does, as far as it can be done when the interpreter ends."""
        self.concurrency.run_at_exit(self.end(ack, seconds))

    def after_fork(self) -> object:
        """Forget, in a child that `fork` just made, what belongs to the parent; return it for safe-keeping."""
        parents = (self.transport, self.held, self.streams, self.own)
        self.lock = threading.Lock()  # the parent's may be held by a thread that is not here
        self._forget()
        return parents
