"""`Message`: a delivered message in the hands of a user, and `PeekedMessage`: one that was looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeVar

from stiqueue.errors import InvalidRequest
from stiqueue.message.delivered import Delivered
from stiqueue.message.operations import Outcome, Settlement, State
from stiqueue.message.reserved import ANSWERS_PREFIX, CORRELATION_HEADER, ERROR_HEADER, REPLY_TO_HEADER

ANSWER_TTL = 60.0
"""How many seconds an answer waits for a caller that may be gone."""
MOST_ERROR_CHARACTERS = 1_000

Body = str | bytes | bytearray | memoryview
"""The types of a body; text is sent as UTF-8."""

M = TypeVar("M", bound="Message")


class Holder(Protocol):
    """Holds the lease of a message and settles it, for the client that took the message."""

    def settle(self, message: Message, settlement: Settlement) -> Any:
        """Settle `message`."""
        ...

    def hand_over(self, message: Message, msg: Body, *, splits: bool = False, **options: Any) -> Any:
        """Ack `message` and enqueue `msg`, in one step; with `splits` in two, where there is no other way."""
        ...

    def retry_delay(self, message: Message) -> float:
        """Return the default delay in seconds with which `message` is requeued."""
        ...


class Message(bytes):
    """A delivered message: its body as `bytes`, its properties, and methods to settle it.

    `ack`, `requeue`, `dead_letter` and `extend` return True if they took effect. False means that the lease had expired
    or the message was settled before; this is harmless, because the server delivers an expired message again. Await
    them if the message is from an `AsyncSQClient`.
    """

    _delivered: Delivered
    _holder: Holder | None
    _finalizer: object = None
    """Lives as long as the message: its end shows that nobody can settle the message."""

    queue: str
    """The queue it came from."""

    @classmethod
    def wrap(cls: type[M], delivered: Delivered, queue: str, holder: Holder | None, finalizer: object = None) -> M:
        """Make a message from a delivery.

        Args:
            delivered: what the transport delivered.
            queue: the queue that it came from.
            holder: settles it; None if there is no lease.
            finalizer: lives as long as the message.
        """
        message = cls(delivered.body)
        message._delivered = delivered
        message.queue = queue
        message._holder = holder
        message._finalizer = finalizer
        return message

    @property
    def id(self) -> int:
        """Its id: unique and rising within its queue."""
        return self._delivered.id

    @property
    def lease_id(self) -> str:
        """The name of this delivery; empty when it is not leased."""
        return self._delivered.lease_id

    @property
    def attempt(self) -> int:
        """Which delivery this is: 1, 2, ... For a peeked message: how many it has had so far."""
        return self._delivered.attempt

    @property
    def priority(self) -> int:
        """The priority it was enqueued with, 0..255."""
        return self._delivered.priority

    @property
    def headers(self) -> dict[str, str]:
        """The headers it was enqueued with (a new dictionary)."""
        return dict(self._delivered.headers)

    @property
    def enqueue_time_ms(self) -> int:
        """When it was enqueued: milliseconds since 1970 by the server's clock."""
        return self._delivered.enqueue_time_ms

    @property
    def key(self) -> str:
        """The key it was enqueued with, whose messages are worked on in order and one at a time; empty: none."""
        return self._delivered.key

    @property
    def unique_key(self) -> str:
        """The unique key it was enqueued with; empty: none."""
        return self._delivered.unique_key

    def ack(self) -> Any:
        """Settle the message: it is done and forgotten.

        Returns:
            Whether the lease was still held. False: the server delivers the message again; or an earlier try of this
            call had settled it, and the answer was lost with the connection.

        Raises:
            Unavailable: the server stayed away for the client's `timeout`. Whether the message is settled is unknown.
        """
        return self._answer(Settlement([self.lease_id]))

    def requeue(self, delay: float | None = None, *, untouched: bool = False) -> Any:
        """Give the message back to its old place in the queue.

        Args:
            delay: seconds that it is invisible; default: the client's `retry_delay`, doubled at each attempt.
            untouched: nobody has begun to work on it, so this delivery does not count as an attempt, and `delay`
                defaults to 0.
        """
        if delay is None:
            delay = 0.0 if untouched else self._held().retry_delay(self)
        return self._answer(Settlement([self.lease_id], Outcome.REQUEUE, delay, untouched=untouched))

    @property
    def wants_reply(self) -> bool:
        """Whether it is a call, whose caller waits for an answer: see `reply`."""
        headers = self._delivered.headers
        return headers.get(REPLY_TO_HEADER, "").startswith(ANSWERS_PREFIX) and CORRELATION_HEADER in headers

    def reply(self, msg: Body = b"", *, headers: Mapping[str, str] | None = None) -> Any:
        """Answer the call that this message is, and settle the message, in one step (on a cluster: in two).

        However often a call is delivered, its caller gets one answer. The answer waits a minute for its caller.

        Args:
            msg: the body of the answer.
            headers: at most 63, 8 KiB in all with the one that is added.

        Returns:
            The answer's id.

        Raises:
            InvalidRequest: this message is not a call (see `wants_reply`), or a value is out of range.
            LeaseStale: the lease had expired: nothing was answered, for the message is or was delivered again.
        """
        if not self.wants_reply:
            raise InvalidRequest("this message is not a call: nobody waits for an answer", "NO_CALL")
        asked = self._delivered.headers
        answered = {**(headers or {}), CORRELATION_HEADER: asked[CORRELATION_HEADER]}
        return self._held().hand_over(
            self,
            msg,
            splits=True,
            queue=asked[REPLY_TO_HEADER],
            ttl=ANSWER_TTL,
            headers=answered,
            request_id=asked[CORRELATION_HEADER],
        )

    def reply_error(self, error: BaseException) -> Any:
        """Answer the call with an error, which its caller gets as `RemoteError`; else as `reply`."""
        try:
            text = str(error)
        except Exception:  # of a class of the user's
            text = ""
        body = text[:MOST_ERROR_CHARACTERS].encode(errors="replace")
        return self.reply(body, headers={ERROR_HEADER: type(error).__name__[:MOST_ERROR_CHARACTERS]})

    def ack_and_enq(self, msg: Body, **options: Any) -> Any:
        """Settle the message and enqueue `msg` in one step: both happen or neither.

        Args:
            msg: the body of the new message.
            options: those of `enq`: queue, priority, delay, ttl, headers, request_id, key, unique_key, timeout.

        Returns:
            The new message's id.

        Raises:
            LeaseStale: the lease had expired. Nothing was enqueued, and the server delivers the message again.
        """
        return self._held().hand_over(self, msg, **options)

    def dead_letter(self, reason: str = "") -> Any:
        """Move the message to the queue ``<queue>.dead``, with `reason` in its headers.

        Args:
            reason: at most 1,024 bytes of UTF-8. Characters that cannot be encoded become "?".
        """
        if isinstance(reason, str):  # any other type is refused below, by name
            reason = reason.encode(errors="replace").decode()
        return self._answer(Settlement([self.lease_id], Outcome.DEAD_LETTER, reason=reason))

    def extend(self, seconds: float) -> Any:
        """Hold the lease for `seconds` from now, however long it had."""
        return self._answer(Settlement([self.lease_id], Outcome.EXTEND, seconds))

    def _answer(self, settlement: Settlement) -> Any:
        return self._held().settle(self, settlement)

    def _held(self) -> Holder:
        if self._holder is None:
            raise InvalidRequest("this message is not leased: there is nothing to settle", "NOT_LEASED")
        return self._holder

    def __reduce__(self) -> tuple[type[bytes], tuple[bytes]]:
        """Pickle as plain `bytes`: a lease belongs to the process that holds it."""
        return bytes, (bytes(self),)


class PeekedMessage(Message):
    """A message that was looked at, not taken, with its state."""

    state: State
    """READY, LEASED or DELAYED."""
    consumer: str
    """The consumer that holds it, if it is leased."""
    state_age_ms: int
    """Milliseconds since it entered this state."""
    ready_time_ms: int
    """When it can be delivered next, in milliseconds since 1970; 0: now, or unknown."""
    expire_time_ms: int
    """When its ttl runs out, in milliseconds since 1970; 0: never."""
    blocked: bool
    """Whether it is ready and waits for an earlier message of its key."""

    @classmethod
    def show(
        cls,
        delivered: Delivered,
        queue: str,
        state: State,
        consumer: str,
        state_age_ms: int,
        ready_time_ms: int,
        expire_time_ms: int,
        blocked: bool = False,
    ) -> PeekedMessage:
        """Make a peeked message from an answer."""
        message = cls(delivered.body)
        message._delivered, message._holder, message.queue = delivered, None, queue
        message.state, message.consumer = state, consumer
        message.state_age_ms, message.ready_time_ms = state_age_ms, ready_time_ms
        message.expire_time_ms, message.blocked = expire_time_ms, blocked
        return message
