"""The names that StiQueue itself gives to headers and queues."""

from __future__ import annotations

DEAD_SUFFIX = ".dead"
"""The end of the name of a dead letter queue."""

DEAD_QUEUE_HEADER = "stiqueue-dead-queue"
DEAD_REASON_HEADER = "stiqueue-dead-reason"
DEAD_ATTEMPTS_HEADER = "stiqueue-dead-attempts"

STAGING_HEADER = "stiqueue-moving"
"""The header of a message on its way to another server: the name of its group, and when its ttl runs out in ms since
1970 (0: never)."""

ANSWERS_PREFIX = "stiqueue-answers."
"""What the name of a queue for answers begins with. Nobody else's queue gets an answer, whatever a request says."""
REPLY_TO_HEADER = "stiqueue-reply-to"
CORRELATION_HEADER = "stiqueue-correlation-id"
ERROR_HEADER = "stiqueue-error-type"
"""In an answer that is an error: the name of its class; the body is its text."""
