"""A client's connection, the streams on it, and its end."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from stiqueue.client import dropped, exits
from stiqueue.client.backoff import Backoff, Patience
from stiqueue.client.options import Options
from stiqueue.client.parting import Departing, Parting
from stiqueue.client.tracing import Tracing, find_tracing
from stiqueue.client.transport import Stream, Transport
from stiqueue.client.waiting.concurrency import Concurrency, Own, Signal
from stiqueue.client.window import Window
from stiqueue.errors import Closed, StiQueueError, Unavailable
from stiqueue.message import Message

CLOSE_SECONDS = 5.0
"""How long closing waits for an absent server. By then the server has given back the leases."""

DRAIN_SECONDS = 1.0
"""How long closing waits beyond the timeout of messages, so that each fails with its own reason."""

Flush = Callable[[float], Coroutine[Any, Any, None]]
"""Waits for answers, for up to so many seconds."""

M = TypeVar("M", bound=Message)


class Answering(Protocol):
    """The answers to a client's calls."""

    async def stop(self, failure: StiQueueError) -> None:
        """Fail all waiting calls, and stop reading answers."""
        ...


A = TypeVar("A", bound=Answering)


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
        """The class of delivered messages."""
        self.is_closed = False
        self._lock = threading.Lock()
        """Protects `transport`, `held` and `streams`."""
        self._make_transport = make_transport
        self._tracing: tuple[Tracing | None] | None = None
        self._watch: weakref.finalize[..., object] | None = None
        """Closes the transport if the client is garbage-collected before it was closed."""
        self._forget()
        exits.reset_in_forks(self)

    def _forget(self) -> None:
        """Start with nothing open: in a new client, after `disconnect` and after a `fork`."""
        if self._watch is not None:
            self._watch.detach()
        self.transport: Transport | None = None
        self.home: object = None
        """The event loop to which the transport belongs; None for threads."""
        self.held: set[Departing] = set()
        """The streams of `deq`, of all threads or tasks."""
        self.streams: dict[Stream, Flush | None] = {}
        """The streams of `consume`, each with the background wait for the answers to its acks."""
        self.own: Own[Any] = self.concurrency.own(lambda taker: taker.fail(), lambda taker: taker.end())
        """The `Taker` that the next `deq` of the current thread or task continues."""
        self._process = os.getpid()
        self.window = Window(self.concurrency, self.options)
        """The unconfirmed messages of `enq_soon`."""
        self._answers: Answering | None = None
        """The answers to calls, from the first call on."""
        self.interrupted: Signal = self.concurrency.signal()
        """Set when the client closes: waiting calls end."""

    @property
    def tracing(self) -> Tracing | None:
        """Makes spans of messages; None without a tracer provider. Looked up once, at the client's first use."""
        # Not a `cached_property`: before Python 3.12 that has a lock, which a child may inherit locked.
        if self._tracing is None:
            self._tracing = (find_tracing(),)
        return self._tracing[0]

    def connected(self) -> Transport:
        """Return the transport, made on first use."""
        transport = self.transport
        if transport is not None and (self.home is None or not self.concurrency.has_moved(self.home)):
            return transport
        with self._lock:
            self.raise_if_closed()
            if self.transport is not None and self.concurrency.has_moved(self.home):
                self._abandon()
            if self.transport is None:
                self.transport = self._make_transport(self.options, self.concurrency)
                self.home = self.concurrency.home()
                self._watch = dropped.watch(self, self.transport, self.concurrency)
                self.concurrency.on_shutdown(self.disconnect)
                exits.watch(self)
            return self.transport

    def answers_of(self, make: Callable[[], A]) -> A:
        """Return the answers to calls, made by `make` for the first call on a connection."""
        with self._lock:
            self.raise_if_closed()
            answers: Any = self._answers
            if answers is None:
                answers = self._answers = make()
            return answers  # type: ignore[no-any-return]

    def _abandon(self) -> None:
        """Give up everything that belongs to an event loop which ended without closing it. The lock is held."""
        for stream in [*self.streams, *(held.stream for held in self.held)]:
            with suppress(RuntimeError):  # the loop is closed
                stream.cancel()
        self.window.report()
        self._forget()

    def raise_if_closed(self) -> None:
        """Raise `Closed` if the client was closed for good."""
        if self.is_closed:
            raise Closed("the client was closed")

    def has_left(self, transport: Transport | None) -> bool:
        """Whether the client was disconnected while it used `transport`.

        Raises:
            Closed: it was closed for good.
        """
        self.raise_if_closed()
        return self.transport is not transport

    def hold(self, leases: Departing) -> None:
        """Add the leases of a stream of `deq`."""
        with self._lock:
            self.held.add(leases)

    def drop(self, leases: Departing) -> None:
        """End a stream of `deq`; its leases go back. Harmless when repeated."""
        with self._lock:
            is_ours = leases in self.held  # not the parent's, in a child that `fork` made
            self.held.discard(leases)
        leases.forget()
        if is_ours:
            leases.stream.cancel()

    def part_with(self, leases: Departing, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin `work` on `leases` in the background. For finalizers: takes no lock and does not wait."""
        if self._is_ours(leases):
            self.concurrency.leave(work, self.home)

    def _is_ours(self, leases: Departing) -> bool:
        # Not the parent's, in a child that has not been told of its `fork` yet, nor of an event loop that has ended.
        return self._process == os.getpid() and leases in self.held

    def opened(self, stream: Stream) -> None:
        """Add a stream that ends with the connection."""
        with self._lock:
            self.streams[stream] = None

    def acks(self, stream: Stream, flush: Flush) -> None:
        """Store the background wait for the answers to the acks of a stream that was `opened`."""
        with self._lock:
            if stream in self.streams:
                self.streams[stream] = flush

    def ended(self, stream: Stream) -> None:
        """Remove a stream that has ended."""
        with self._lock:
            self.streams.pop(stream, None)

    async def pause(self, backoff: Backoff, error: Unavailable, stream: Stream, began: float) -> None:
        """Wait before reopening `stream`, opened at `began`; raise `error` when the server was away too long."""
        self.raise_if_closed()
        if await stream.connected():  # until just now
            backoff.reset()
            began = time.monotonic()
        await backoff.pause(error, self.interrupted, began)

    async def disconnect(self) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the connections; the next call connects again.

        First waits for the messages of `enq_soon`, and raises their first failure as `close` does.
        """
        await self._leave(ack=True)

    async def close(self, ack: bool = True) -> None:
        """Ack what `deq` returned (with `auto_ack`) and close the client for good. Safe to call twice.

        First waits for the messages of `enq_soon`, for up to the client's `timeout`.

        Raises:
            StiQueueError: the first failure of these that nobody has been told (with `ack`; otherwise it is logged).
        """
        self.is_closed = True
        await self._leave(ack)

    async def _leave(self, ack: bool) -> None:
        window, options = self.window, self.options
        try:
            with suppress(Unavailable, RuntimeError):  # unconfirmed messages fail below; a callback cannot wait
                await window.drain(options.timeout + DRAIN_SECONDS, self.connected)
        finally:
            try:
                await self.end(ack, seconds=min(options.timeout, CLOSE_SECONDS))
            finally:
                await window.stop()
        if ack:
            window.raise_failures()
        window.report()

    async def end(self, ack: bool, seconds: float) -> None:
        """Ack or give back the messages that `deq` returned, end all streams, close the connections.

        Args:
            ack: ack them (with `auto_ack`), or give them back.
            seconds: how long to wait for an absent server. It delivers messages again that could not be acked.
        """
        with self._lock:
            if self.transport is not None and self.concurrency.has_moved(self.home):
                self._abandon()
            transport, held, streams, interrupted = self.transport, self.held, self.streams, self.interrupted
            answers = self._answers
            partings = [leases.part(ack and self.options.auto_ack) for leases in held]
            self._forget()
        interrupted.set()
        if transport is None:
            return
        acked = [lease_id for parting in partings for lease_id in parting.acked]
        try:
            patience = Patience.of(seconds)
            for flush in [*(leases.flush for leases in held), *filter(None, streams.values())]:
                await flush(patience.left)
            back = [lease_id for parting in partings for lease_id in parting.back]
            names = [lease_id for parting in partings for lease_id in parting.names]
            await Parting(acked, back, names).tell(transport, seconds)
        except StiQueueError as error:
            if acked:
                self.options.logger.warning(
                    "could not ack %d messages, they are delivered again: %s", len(acked), error
                )
        finally:
            if answers is not None:
                gone = "the client was closed" if self.is_closed else "the client was disconnected"
                await answers.stop(Closed(gone) if self.is_closed else Unavailable(gone))
            for stream in [*streams, *(leases.stream for leases in held)]:
                stream.cancel()
            await transport.close()

    def end_at_exit(self, ack: bool, seconds: float) -> None:
        """Do what `end` does, as far as possible at the end of the interpreter."""
        window = self.window

        async def leave() -> None:
            with suppress(Unavailable):
                await window.drain(seconds, self.connected)
            await self.end(ack, seconds)
            await window.stop()

        self.concurrency.run_at_exit(leave())
        window.report()

    def after_fork(self) -> object:
        """Forget, in a child that `fork` just made, everything of the parent; return it, so that it stays open."""
        parents = (self.transport, self.held, self.streams, self.own, self.window)
        self._lock = threading.Lock()  # the parent's may be held by a thread that is not here
        self._forget()
        return parents
