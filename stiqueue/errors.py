"""The exceptions of StiQueue, raised by server, engines and clients alike.

    StiQueueError
    |-- Unavailable              the server cannot be reached, or is stopping
    |-- Closed                   the client was closed
    |-- InvalidRequest           a field is out of range (also a ValueError)
    |-- LimitReached             a bound is reached; nothing was dropped to make room
    |   |-- QueueFull
    |   |-- TooManyConsumers
    |   `-- DiskFull
    |-- LeaseStale               a lease is no longer held
    |-- MessageLeased            a consumer holds the message
    |-- SettingFixed             the server's settings file says otherwise
    |-- NoAnswer                 a call was not answered in time (also a TimeoutError)
    |-- RemoteError              a call was answered with an error
    |-- NotSupported             this engine or version cannot do that
    |-- AccessDenied             the token lacks the right
    |   `-- Unauthenticated      no valid token, or no TLS where it is needed
    |-- StoreError               the data file cannot be used as it is
    |   |-- StoreDamaged
    |   `-- StoreInUse
    `-- ServerError              the server failed in a way that is a defect

Each has a `reason`: a fixed word such as ``QUEUE_FULL`` that travels over the wire, so that nobody parses text.
`stiqueue.wire.status` maps them to gRPC status codes and back.
"""

from __future__ import annotations


class StiQueueError(Exception):
    """Raised when StiQueue cannot do what was asked; the base of all others."""

    reason = "ERROR"
    is_refusal = False
    """Whether it is certain that nothing was done: the server refused, and no try of the request was left unanswered.
    Only then is it safe to send the same in another request; otherwise repeat it under the same `request_id`."""

    def __init__(self, text: str = "", reason: str = "") -> None:
        """Keep `text` (default: the class's own sentence) and `reason` (default: the class's own)."""
        # Under -OO classes have no sentence.
        super().__init__(text or (type(self).__doc__ or f"{type(self).__name__}: {self.reason}").splitlines()[0])
        if reason:
            self.reason = reason

    def told_as(self, text: str, is_half_done: bool) -> StiQueueError:
        """Return an error of the same kind with another text; `is_half_done`: part of what was asked for was done."""
        told = type(self)(text, self.reason)
        told.is_refusal = self.is_refusal and not is_half_done
        return told


class Unavailable(StiQueueError):
    """Raised when the server cannot be reached in time, or is stopping. Trying again later is safe."""

    reason = "UNAVAILABLE"


class Closed(StiQueueError):
    """Raised when a closed client is used."""

    reason = "CLOSED"


class InvalidRequest(StiQueueError, ValueError):
    """Raised when a field of a request is out of range; nothing was changed."""

    reason = "INVALID_REQUEST"
    is_refusal = True


class LimitReached(StiQueueError):
    """Raised when a bound of the server is reached; the newest request is refused, nothing old is dropped."""

    reason = "LIMIT_REACHED"
    is_refusal = True


class QueueFull(LimitReached):
    """Raised when a queue or the server has no room for more messages."""

    reason = "QUEUE_FULL"


class TooManyConsumers(LimitReached):
    """Raised when the server has as many consumers as it allows."""

    reason = "TOO_MANY_CONSUMERS"


class DiskFull(LimitReached):
    """Raised when the server's disk has no room for more messages; acks and deliveries go on."""

    reason = "DISK_FULL"


class LeaseStale(StiQueueError):
    """Raised when a lease that must be held has expired or was settled; nothing was changed."""

    reason = "LEASE_STALE"
    is_refusal = True


class MessageLeased(StiQueueError):
    """Raised by a client when a consumer holds the message that it was to take; nothing was changed."""

    reason = "MESSAGE_LEASED"
    is_refusal = True


class SettingFixed(StiQueueError):
    """Raised when the server's settings file fixes a setting that was to be changed; nothing was changed."""

    reason = "SETTING_FIXED"
    is_refusal = True


class NoAnswer(StiQueueError, TimeoutError):
    """Raised when a call got no answer in time. Whether a worker has done the work is unknown."""

    reason = "NO_ANSWER"


class RemoteError(StiQueueError):
    """Raised when a worker answered a call with an error."""

    reason = "REMOTE_ERROR"

    def __init__(self, kind: str = "Exception", text: str = "") -> None:
        """Keep the name of the error's class, such as "ValueError", as `type`, and its text as `text`."""
        super().__init__(f"{kind}: {text}" if text else kind)
        self.type = kind
        self.text = text

    def __reduce__(self) -> tuple[type[RemoteError], tuple[str, str]]:
        """Pickle with both."""
        return RemoteError, (self.type, self.text)


class NotSupported(StiQueueError):
    """Raised when this engine or version cannot do what was asked."""

    reason = "NOT_SUPPORTED"
    is_refusal = True


class AccessDenied(StiQueueError):
    """Raised when a token lacks the right for a call."""

    reason = "ACCESS_DENIED"
    is_refusal = True


class Unauthenticated(AccessDenied):
    """Raised when a call has no valid token."""

    reason = "UNAUTHENTICATED"


class StoreError(StiQueueError):
    """Raised when the data file cannot be used."""

    reason = "STORE_ERROR"


class StoreDamaged(StoreError):
    """Raised when the data file is damaged: going on could lose or alter messages."""

    reason = "STORE_DAMAGED"

    def __init__(self, text: str = "", reason: str = "", last_good: str = "") -> None:
        """Keep also `last_good`: the last message before the damage, as "7 of default"; default: not known."""
        super().__init__(text, reason)
        self.last_good = last_good


class StoreInUse(StoreError):
    """Raised when another process holds the data file."""

    reason = "STORE_IN_USE"


class ServerError(StiQueueError):
    """Raised when the server failed in a way that is a defect."""

    reason = "INTERNAL"


class Reject(Exception):
    """Raised by a handler of `Worker`, not by StiQueue: the message is to be a dead letter, this text the reason."""
