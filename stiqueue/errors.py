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
    |-- NotSupported             this engine or version cannot do that
    |-- AccessDenied             the token lacks the right
    |   `-- Unauthenticated      no valid token, or no TLS where it is needed
    |-- StoreError               the data file cannot be used as it is
    |   |-- StoreDamaged
    |   `-- StoreInUse
    `-- ServerError              the server failed in a way that is a defect

Each has a `reason`: a fixed word such as ``QUEUE_FULL`` that travels over the wire, so that nobody parses text.
`stiqueue.status` maps them to gRPC status codes and back.
"""

from __future__ import annotations


class StiQueueError(Exception):
    """Raised when StiQueue cannot do what was asked; the base of all others."""

    reason = "ERROR"

    def __init__(self, text: str = "", reason: str = "") -> None:
        """Keep `text` (default: the class's own sentence) and `reason` (default: the class's own)."""
        super().__init__(text or (type(self).__doc__ or "").splitlines()[0])
        if reason:
            self.reason = reason


class Unavailable(StiQueueError):
    """Raised when the server cannot be reached in time, or is stopping. Trying again later is safe."""

    reason = "UNAVAILABLE"


class Closed(StiQueueError):
    """Raised when a closed client is used."""

    reason = "CLOSED"


class InvalidRequest(StiQueueError, ValueError):
    """Raised when a field of a request is out of range; nothing was changed."""

    reason = "INVALID_REQUEST"


class LimitReached(StiQueueError):
    """Raised when a bound of the server is reached; the newest request is refused, nothing old is dropped."""

    reason = "LIMIT_REACHED"


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


class NotSupported(StiQueueError):
    """Raised when this engine or version cannot do what was asked."""

    reason = "NOT_SUPPORTED"


class AccessDenied(StiQueueError):
    """Raised when a token lacks the right for a call."""

    reason = "ACCESS_DENIED"


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
