"""The unconfirmed messages of `enq_soon`, which a companion sends."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

from stiqueue.client.groups import Group, Unconfirmed, are_alike
from stiqueue.client.options import Options
from stiqueue.client.transport import Transport
from stiqueue.client.waiting.concurrency import Companion, Concurrency, Promise, Turn
from stiqueue.errors import AccessDenied, Unavailable
from stiqueue.message import Batch

MOST_TOGETHER = 999
"""The most messages in one request; see `enqueue.BATCH_MESSAGES`."""
IDLE_SECONDS = 1.0
"""How long the companion waits for another message before it ends."""
JOIN_SECONDS = 5.0
"""How long `stop` waits for the companion to report the last outcomes."""
LONGEST_WAIT_SECONDS = 3_600.0

Connected = Callable[[], Transport]
"""Returns the transport, or raises why there is none."""


class Window:
    """The unconfirmed messages of a client, at most `options.window`. Thread-safe.

    One request is in flight at a time, so that messages arrive in the order in which they were handed over, even when
    one is refused or repeated. Messages that gather meanwhile form the next request.
    """

    def __init__(self, concurrency: Concurrency, options: Options) -> None:
        """Begin empty."""
        self._concurrency = concurrency
        self._options = options
        self._items: deque[Unconfirmed] = deque()
        """Messages that the companion has not taken yet. Only the companion takes from the left."""
        self._groups: deque[Group] = deque()
        """Taken and not confirmed, the first one in flight. If the companion is cancelled, the next one continues."""
        self._telling: int | None = None
        """The thread that runs callbacks of users. These may call the client, which must not wait for itself."""
        self._lock = threading.Lock()
        """Protects all that follows, and is held to add to `_items`."""
        self._put = 0
        self._done = 0
        """How many have an outcome, in the order of `put`."""
        self._companion: Companion | None = None
        self._idle: Turn | None = None
        """The companion's turn while it waits for another message."""
        self._is_stopping = False
        """Whether the companion ends rather than waits."""
        self._waiting: list[Turn] = []
        """The turns of flows that wait for room or for confirmations."""
        self._failed: deque[tuple[Promise, Exception]] = deque()

    async def put(self, batch: Batch, seconds: float, connected: Connected) -> Promise:
        """Take over a message once there is room; return the promise of its id.

        Raises:
            Unavailable: there was no room within `seconds`.
        """
        since, most = time.monotonic(), self._options.window
        while True:
            with self._lock:
                if self._put - self._done < most or self._telling == threading.get_ident():
                    promise = self._concurrency.promise()
                    self._is_stopping = False
                    self._start(connected)
                    self._items.append(Unconfirmed(batch, promise, seconds, since))
                    self._put += 1
                    idle, self._idle = self._idle, None
                    break
                turn = self._turn()
            if not await self._come(turn, since + seconds):
                error = Unavailable(
                    f"{most} messages are unconfirmed, as many as may be, and stayed so for {seconds:g} s"
                )
                error.is_refusal = True
                raise error
            connected()  # raises when the client was closed meanwhile
        if idle is not None:
            idle.give()
        return promise

    async def drain(self, seconds: float | None, connected: Connected) -> None:
        """Wait until all messages that are here now have an outcome.

        Raises:
            Unavailable: some had none within `seconds`.
            RuntimeError: it is called by a callback, which would wait for itself.
        """
        if self._telling == threading.get_ident():
            raise RuntimeError("called by a callback of enq_soon, which it would wait for")
        deadline = None if seconds is None else time.monotonic() + seconds
        last = self._put
        while True:
            with self._lock:
                if self._done >= last:
                    return
                self._start(connected)
                turn = self._turn()
            if not await self._come(turn, deadline):
                raise Unavailable(f"{last - self._done} messages were not confirmed within {seconds:g} s")

    async def stop(self) -> None:
        """Let the companion end. The transport is closed, or every message is confirmed."""
        with self._lock:
            self._is_stopping = True
            companion, idle, self._idle = self._companion, self._idle, None
        if idle is not None:
            idle.give()
        if companion is not None:
            await companion.join(JOIN_SECONDS)

    def raise_failures(self) -> None:
        """Raise the first failure that nobody has been told, and log the others; each is reported once."""
        failures = self._take_failures()
        self._log(failures[1:])
        if failures:
            raise failures[0]

    def _take_failures(self) -> list[Exception]:
        with self._lock:
            failed, self._failed = self._failed, deque()
        return [error for promise, error in failed if not promise.was_heard]

    def report(self) -> None:
        """Log the failures that nobody has been told, and the number of messages that nobody waits for."""
        self._log(self._take_failures())
        left = self._put - self._done
        if left:
            self._options.logger.warning("%d messages of enq_soon are not confirmed: nobody waited for them", left)

    def _log(self, failures: list[Exception]) -> None:
        """Log failures, those of one kind together."""
        for text, number in Counter(map(str, failures)).items():
            self._options.logger.warning("%d messages of enq_soon are not confirmed: %s", number, text)

    # -- waiting --------------------------------------------------------------------------------------------------

    def _turn(self) -> Turn:
        """Return a turn that the next outcome gives. The lock is held."""
        turn = self._concurrency.turn()
        self._waiting.append(turn)
        return turn

    async def _come(self, turn: Turn, deadline: float | None) -> bool:
        """Wait for `turn`; return False at the deadline."""
        left = LONGEST_WAIT_SECONDS if deadline is None else deadline - time.monotonic()
        try:
            if left > 0:
                await turn.come(min(left, LONGEST_WAIT_SECONDS))
        finally:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
        return left > 0

    # -- the companion --------------------------------------------------------------------------------------------

    def _start(self, connected: Connected) -> None:
        """Start the companion unless one works. The lock is held."""
        if self._companion is None:
            self._companion = self._concurrency.accompany(self._carry(connected), "stiqueue-enq-soon")

    async def _carry(self, connected: Connected) -> None:
        """Send one group after another. `connected` keeps the client alive until all is confirmed."""
        try:
            while True:
                if self._groups or self._gather():
                    await self._send(self._groups[0], connected)
                elif not await self._more():
                    return
        except BaseException:  # a cancelled task: the next flow that waits starts another, for the same groups
            with self._lock:
                self._companion = None
            raise

    async def _more(self) -> bool:
        """Wait for another message; without one, end."""
        with self._lock:
            if not self._items and not self._is_stopping:
                self._idle = self._concurrency.turn()
            idle = self._idle
        if idle is not None:
            await idle.come(IDLE_SECONDS)
        with self._lock:
            self._idle = None
            if not self._items:
                self._companion = None
            return bool(self._items)

    def _gather(self) -> bool:
        """Take the next messages that may share a request; return whether any were left."""
        items = self._items
        taken: list[Unconfirmed] = []
        number = size = 0
        while items and number < MOST_TOGETHER:
            item = items[0]
            size += len(item.batch.bodies[0])
            if taken and not (size <= self._options.batch_bytes and are_alike(taken[0], item)):
                break
            items.popleft()
            number += 1
            if item.promise.begin():
                taken.append(item)
        if taken:
            self._groups.append(Group(taken, number))
        elif number:
            self._note_done(number)
        return bool(taken)

    async def _send(self, group: Group, connected: Connected) -> None:
        """Send a group until it is confirmed or fails."""
        first = group.items[0]
        left = first.since + first.seconds - time.monotonic()
        failure: Exception | None = None
        first_id = 0
        try:
            transport = connected()
            group.batch = transport.named(group.batch)
            first_id = (await transport.enq(group.batch, max(0.0, left))).first_id
        except Exception as error:
            failure = error
        self._groups.popleft()
        is_refusal = getattr(failure, "is_refusal", False) and not isinstance(failure, AccessDenied)
        if is_refusal and len(group.items) > 1:  # one message's mistake must not fail the others
            self._groups.extendleft(reversed(group.divided()))
            return
        self._telling = threading.get_ident()
        try:
            for message_id, item in enumerate(group.items, first_id):
                if failure is None:
                    item.promise.fulfil(message_id)
                else:
                    item.promise.fail(failure)
        finally:
            self._telling = None
        if failure is not None:
            self._note_failed(group.items, failure)
        self._note_done(group.number)

    def _note_failed(self, items: list[Unconfirmed], failure: Exception) -> None:
        """Keep a failure for the next `flush` or `close`; log those that fall out of the window."""
        old = []
        with self._lock:
            self._failed.extend((item.promise, failure) for item in items)
            while len(self._failed) > self._options.window:
                old.append(self._failed.popleft())
        self._log([error for promise, error in old if not promise.was_heard])

    def _note_done(self, number: int) -> None:
        """Wake the flows that wait for room or for confirmations."""
        with self._lock:
            self._done += number
            waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.give()
