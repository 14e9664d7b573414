"""The values that move through a queue. Engines, server and clients share them.

Import them from here; the modules inside are one noun each.
"""

from __future__ import annotations

from stiqueue.message.delivered import Delivered
from stiqueue.message.message import ANSWER_TTL, Body, Holder, Message, PeekedMessage
from stiqueue.message.operations import (
    NO_HEADERS,
    Batch,
    Counts,
    Durability,
    Outcome,
    PeekQuery,
    Receipt,
    Settlement,
    State,
    Subscription,
)
from stiqueue.message.reserved import (
    ANSWERS_PREFIX,
    CORRELATION_HEADER,
    DEAD_ATTEMPTS_HEADER,
    DEAD_QUEUE_HEADER,
    DEAD_REASON_HEADER,
    DEAD_SUFFIX,
    ERROR_HEADER,
    REPLY_TO_HEADER,
    STAGING_HEADER,
)

__all__ = [
    "ANSWERS_PREFIX",
    "ANSWER_TTL",
    "CORRELATION_HEADER",
    "DEAD_ATTEMPTS_HEADER",
    "DEAD_QUEUE_HEADER",
    "DEAD_REASON_HEADER",
    "DEAD_SUFFIX",
    "ERROR_HEADER",
    "NO_HEADERS",
    "REPLY_TO_HEADER",
    "STAGING_HEADER",
    "Batch",
    "Body",
    "Counts",
    "Delivered",
    "Durability",
    "Holder",
    "Message",
    "Outcome",
    "PeekQuery",
    "PeekedMessage",
    "Receipt",
    "Settlement",
    "State",
    "Subscription",
]
