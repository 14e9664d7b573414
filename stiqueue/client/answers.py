"""The answers to a client's calls: the queue in which they come, and the calls that wait."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any

from stiqueue.client.feed import Feed
from stiqueue.client.session import Session
from stiqueue.client.waiting.concurrency import Companion, Signal
from stiqueue.errors import Closed, NoAnswer, StiQueueError, Unavailable
from stiqueue.message import ANSWERS_PREFIX, CORRELATION_HEADER, Delivered, Settlement, Subscription

PREFETCH = 1_000
IDLE_SECONDS = 5.0
"""How long the companion waits for an answer while no call is under way, before it ends."""
JOIN_SECONDS = 5.0
"""How long `stop` waits for the companion to ack the answers that it has read."""


class Waiter:
    """One call that waits for its answer."""

    __slots__ = ("_signal", "answer", "failure")

    def __init__(self, signal: Signal) -> None:
        self._signal = signal
        self.answer: Delivered | None = None
        self.failure: StiQueueError | None = None

    def tell(self, answer: Delivered | None, failure: StiQueueError | None = None) -> None:
        """Let the call go on."""
        self.answer, self.failure = answer, failure
        self._signal.set()

    async def wait(self, seconds: float) -> Delivered:
        """Return the answer.

        Raises:
            NoAnswer: there is none after `seconds`, or it cannot be read.
            StiQueueError: the client was closed or disconnected.
        """
        await self._signal.wait(seconds)
        if self.failure is not None:
            raise self.failure
        if self.answer is None:
            raise NoAnswer("no worker has answered in time; whether one has done the work is unknown")
        return self.answer


class Answers:
    """The answers of one client, in a queue that nobody else uses. Thread-safe.

    A companion reads the queue while calls are under way, and for `IDLE_SECONDS` more. It passes each answer to its
    call, and drops repeated answers and answers to calls that were given up.
    """

    def __init__(self, session: Session[Any]) -> None:
        """Choose a queue; nothing is opened before the first call."""
        self.queue = f"{ANSWERS_PREFIX}{uuid.uuid4().hex}"
        self._concurrency = session.concurrency
        self._lock = threading.Lock()
        """Protects all that follows."""
        self._waiting: dict[str, list[Waiter]] = {}
        self._companion: Companion | None = None
        self._feed: Feed | None = None
        self._is_acking = False
        """Whether the companion has answers that it will ack before it asks for more."""
        self._is_stopped = False

    @contextmanager
    def expecting(self, session: Session[Any], correlation_id: str) -> Iterator[Waiter]:
        """Expect an answer while a call is under way."""
        waiter = Waiter(self._concurrency.signal())
        with self._lock:
            if self._is_stopped:
                raise Closed("the client was closed")
            self._waiting.setdefault(correlation_id, []).append(waiter)
            if self._companion is None:
                self._companion = self._concurrency.accompany(self._read(session), "stiqueue-answers")
        try:
            yield waiter
        finally:
            with self._lock:
                waiters = self._waiting.get(correlation_id, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiting.pop(correlation_id, None)

    async def stop(self, failure: StiQueueError) -> None:
        """Let all calls fail and the companion end, once it has acked what it has."""
        with self._lock:
            self._is_stopped = True
            # A companion that acks sees afterwards that it is to end; another one may wait for answers.
            companion, feed = self._companion, None if self._is_acking else self._feed
            waiting, self._waiting = self._waiting, {}
        for waiter in chain.from_iterable(waiting.values()):
            waiter.tell(None, failure)
        if feed is not None:
            feed.is_finished = True
            if (stream := feed.stream) is not None:
                stream.cancel()
        if companion is not None:
            await companion.join(JOIN_SECONDS)

    # -- the companion ----------------------------------------------------------------------------------------------

    async def _read(self, session: Session[Any]) -> None:
        """Read answers until none is expected. Keeps the client alive until then."""
        try:
            while self._open(session):
                with suppress(Unavailable):  # calls have time limits of their own
                    await self._read_stream(session)
        except StiQueueError as error:  # the client lacks the right, or there are too many consumers
            self._end(None if isinstance(error, Closed) else error)
        except BaseException:
            self._end(None)
            raise

    def _end(self, failure: StiQueueError | None) -> None:
        """Have no companion any more; with a `failure`, no call that waits gets an answer."""
        with self._lock:
            self._companion = self._feed = None
            waiting: dict[str, list[Waiter]] = {}
            if failure is not None:
                waiting, self._waiting = self._waiting, {}
        for waiter in chain.from_iterable(waiting.values()):
            waiter.tell(None, _unreadable(failure))

    def _open(self, session: Session[Any]) -> bool:
        """Begin to read, if an answer is expected; else, in one step, have no companion any more."""
        asked = Subscription(self.queue, PREFETCH, wait=IDLE_SECONDS, consumer=session.options.consumer)
        with self._lock:
            goes_on = bool(self._waiting) and not self._is_stopped
            self._feed = Feed(session, asked) if goes_on else None
            self._is_acking = False
            if not goes_on:
                self._companion = None
            return goes_on

    async def _read_stream(self, session: Session[Any]) -> None:
        feed = self._feed
        assert feed is not None
        try:
            while (answers := await feed.next()) is not None:
                transport = session.connected()  # before anybody is told, who may close the client
                for answer in answers:
                    self._arrived(answer)
                # Acked only now, and not before: nobody waits for the ack.
                settlement = Settlement([answer.lease_id for answer in answers])
                await transport.settle(settlement, session.options.timeout)
                with self._lock:
                    self._is_acking = False
                    if self._is_stopped:
                        return
        finally:
            await feed.leave()

    def _arrived(self, answer: Delivered) -> None:
        with self._lock:
            self._is_acking = True
            waiters = self._waiting.pop(answer.headers.get(CORRELATION_HEADER, ""), [])
        for waiter in waiters:
            waiter.tell(answer)


def _unreadable(cause: StiQueueError | None) -> NoAnswer:
    error = NoAnswer(f"the answer cannot be read: {cause}; whether a worker has done the work is unknown")
    error.__cause__ = cause
    return error
