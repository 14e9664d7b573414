"""What a client was told when it was made."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from stiqueue.limits import queue_name
from stiqueue.message import Message, Subscription

BATCH_BYTES = 1 << 20
"""Most bytes of bodies that `enq_many` puts into one request; a larger message goes alone."""
LONGEST_RETRY_DELAY = 3_600.0
"""The longest back-off, in seconds."""
LOGGER = logging.getLogger("stiqueue.client")


@dataclass(slots=True)
class Options:
    """The defaults of all calls of a client; `SQClient` and `LocalSQClient` say what each means."""

    queue: str = "default"
    ack_required: bool = True
    auto_ack: bool = True
    timeout: float = 30.0
    ack_timeout: float | None = None
    retry_delay: float = 0.0
    consumer: str = ""
    batch_bytes: int = BATCH_BYTES
    logger: logging.Logger = LOGGER

    def __post_init__(self) -> None:
        """Check the queue's name, the one thing that is never checked later."""
        self.queue = queue_name(self.queue)

    def queue_of(self, queue: str | None) -> str:
        """Return the queue that a call means."""
        return self.queue if queue is None else queue_name(queue)

    def timeout_of(self, timeout: float | None) -> float:
        """Return how many seconds a call waits for an absent server."""
        return self.timeout if timeout is None else timeout

    def retry_delay_of(self, message: Message) -> float:
        """Return how many seconds `message` waits when it is requeued: doubled at each attempt, up to an hour."""
        return min(self.retry_delay * 2.0 ** min(message.attempt - 1, 40), LONGEST_RETRY_DELAY)

    def subscription(
        self, queue: str, prefetch: int = 1, wait: float | None = None, max_messages: int = 0
    ) -> Subscription:
        """Return what a consumer of `queue` asks for."""
        return Subscription(
            queue,
            prefetch,
            max_messages=max_messages,
            no_ack=not self.ack_required,
            wait=wait,
            ack_timeout=self.ack_timeout,
            consumer=self.consumer,
        )
