"""The options of a client."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from stiqueue.arguments import check_flag, check_logger, check_seconds, check_whole
from stiqueue.limits import MAX_DELAY, MAX_PREFETCH, check_ack_timeout, check_consumer, queue_name
from stiqueue.message import Delivered, Message, Subscription

BATCH_BYTES = 1 << 20
"""The most bytes of bodies in one request of `enq_many`; a larger message goes alone."""
MOST_WINDOW = 1_000_000
"""The largest `window`."""
LONGEST_RETRY_DELAY = 3_600.0
"""The longest back-off, in seconds."""
LOGGER = logging.getLogger("stiqueue.client")


_CHECKS: dict[str, Callable[[Any], object]] = {
    "ack_required": partial(check_flag, "ack_required"),
    "auto_ack": partial(check_flag, "auto_ack"),
    "timeout": lambda seconds: check_seconds("timeout", seconds, MAX_DELAY),
    "ack_timeout": check_ack_timeout,
    "retry_delay": lambda seconds: check_seconds("retry_delay", seconds, MAX_DELAY),
    "consumer": check_consumer,
    "prefetch": lambda number: check_whole("prefetch", number, 1, MAX_PREFETCH, "BAD_OPTION"),
    "window": lambda number: check_whole("window", number, 1, MOST_WINDOW, "BAD_OPTION"),
    "logger": check_logger,
}
"""By option; a check raises `InvalidRequest`."""


@dataclass(slots=True)
class Options:
    """The defaults of all calls of a client, described at `SQClient` and `LocalSQClient`.

    Checks each option whenever it is set: `InvalidRequest` names the one with a wrong type or value.
    """

    queue: str = "default"
    ack_required: bool = True
    auto_ack: bool = True
    timeout: float = 30.0
    ack_timeout: float | None = None
    retry_delay: float = 0.0
    consumer: str = ""
    prefetch: int = 1
    window: int = 1_000
    batch_bytes: int = BATCH_BYTES
    logger: logging.Logger = LOGGER

    def __setattr__(self, name: str, value: Any) -> None:
        """Check an option and set it."""
        if name == "queue":
            value = queue_name(value)
        elif name in _CHECKS:
            _CHECKS[name](value)
        object.__setattr__(self, name, value)  # not by super(), which knows the class before it had slots

    def queue_of(self, queue: str | None) -> str:
        """Return the queue that a call means."""
        return self.queue if queue is None else queue_name(queue)

    def timeout_of(self, timeout: float | None) -> float:
        """Return how many seconds a call waits for an absent server.

        Raises:
            InvalidRequest: `timeout` is not a number of seconds, or out of range.
        """
        if timeout is None:
            return self.timeout
        check_seconds("timeout", timeout, MAX_DELAY)
        return timeout

    def retry_delay_of(self, message: Message | Delivered) -> float:
        """Return how many seconds `message` waits when it is requeued: doubled at each attempt, up to an hour."""
        return min(self.retry_delay * 2.0 ** min(message.attempt - 1, 40), LONGEST_RETRY_DELAY)

    def subscription(
        self, queue: str, prefetch: int = 1, wait: float | None = None, max_messages: int = 0, concurrency: int = 0
    ) -> Subscription:
        """Return the request of a consumer of `queue`.

        Raises:
            InvalidRequest: `prefetch` or `wait`, which is the argument `timeout` of users, is out of range.
        """
        check_whole("prefetch", prefetch, 1, MAX_PREFETCH, "BAD_LIMIT")
        if wait is not None:
            check_seconds("timeout", wait, MAX_DELAY)
        return Subscription(
            queue,
            prefetch,
            max_messages=max_messages,
            no_ack=not self.ack_required,
            wait=wait,
            ack_timeout=self.ack_timeout,
            consumer=self.consumer,
            concurrency=concurrency,
        )
