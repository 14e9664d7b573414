"""How a message of kombu becomes one of StiQueue, and the other way round."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any, NamedTuple
from uuid import uuid4

from kombu.utils.json import dumps, loads

from stiqueue import Message
from stiqueue.limits import MAX_DELAY

HIGHEST_PRIORITY = 255
KEPT_ETA = "stiqueue_eta"
"""The header in which a worker finds the ETA that the server has waited for."""


class Posting(NamedTuple):
    """The arguments of an `enq`."""

    body: bytes
    priority: int
    delay: float
    ttl: float | None
    request_id: str


def posting(message: dict[str, Any], queue: str) -> Posting:
    """Return what enqueues `message`, of `virtual.Channel.prepare_message`, in `queue`."""
    properties = message["properties"]
    # The same at each try of one `publish`, so that kombu's own retries enqueue nothing twice.
    request_id = properties.setdefault("stiqueue_request_id", uuid4().hex)
    delay, headers = _delayed(message["headers"])
    # A task that expires is left to a worker, which records that in its result.
    expiration = None if "task" in headers else properties.get("expiration")
    return Posting(
        dumps({**message, "headers": headers}).encode(),
        priority_of(properties.get("priority")),
        delay,
        None if expiration is None else max(0.001, float(expiration) / 1000),  # in milliseconds, as AMQP has it
        f"{request_id}-{queue}"[:128],
    )


def payload(message: Message) -> dict[str, Any]:
    """Return what `virtual.Message` is made of, for one delivery."""
    read: dict[str, Any] = loads(message.decode())
    properties = read["properties"]
    # Unique at each delivery, and of one that is settled no other message's.
    properties["delivery_tag"] = message.lease_id or uuid4().hex
    properties.setdefault("delivery_info", {})["redelivered"] = message.attempt > 1
    return read


def priority_of(value: Any) -> int:
    """Return a priority of kombu as one of StiQueue: both have the higher one first."""
    try:
        return max(0, min(int(value or 0), HIGHEST_PRIORITY))
    except (TypeError, ValueError):
        return 0


def _delayed(headers: dict[str, Any]) -> tuple[float, dict[str, Any]]:
    """Return the seconds until the ETA of a task, and its headers without that.

    A worker that sees an ETA sets the task aside, with a timer, and asks for one message more. There is no need where
    the server delivers it when it is due.
    """
    eta = headers.get("eta") if "task" in headers else None
    if not eta:
        return 0.0, headers
    try:
        due = eta if isinstance(eta, datetime) else datetime.fromisoformat(eta.replace("Z", "+00:00"))
    except (AttributeError, ValueError):
        return 0.0, headers  # the worker says what is wrong with it
    if due.tzinfo is None:
        due = due.replace(tzinfo=timezone.utc)
    delay = (due - datetime.now(timezone.utc)).total_seconds()
    if delay > MAX_DELAY:  # the worker waits for the rest
        return MAX_DELAY, headers
    return max(0.0, delay), {**headers, "eta": None, KEPT_ETA: str(eta)}
