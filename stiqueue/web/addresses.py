"""What addresses of pages mean: queues, messages, tabs."""

from __future__ import annotations

from starlette.requests import Request

from stiqueue.errors import InvalidRequest
from stiqueue.limits import MAX_PRIORITY, queue_name
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.console import Visit
from stiqueue.web.rendering import queue_of

TABS = {
    "ready": pb.MESSAGE_STATE_READY,
    "leased": pb.MESSAGE_STATE_LEASED,
    "delayed": pb.MESSAGE_STATE_DELAYED,
    "dead": pb.MESSAGE_STATE_READY,
}
"""What the tabs of a queue's page show: states of its messages, and of its dead letters those that are ready."""


def queue_in(request: Request) -> str:
    """Return the queue that an address names."""
    return queue_name(queue_of(request.path_params["queue"]))


def id_of(text: str) -> int:
    """Return the id that was typed or linked."""
    if not (text.isascii() and text.isdecimal() and len(text) < 25 and int(text) < 1 << 63):
        raise InvalidRequest(f"id: {text[:40]!r} is not a message's id", "BAD_ID")
    return int(text)


def counts_of(visit: Visit, queue: str) -> pb.QueueCounts:
    """Return the latest counts of a queue."""
    return visit.watch.counts.get(queue) or pb.QueueCounts(queue=queue)


def priority_of(text: str) -> int:
    """Return the priority that was linked."""
    if not (text.isascii() and text.isdecimal() and len(text) < 4 and int(text) <= MAX_PRIORITY):
        raise InvalidRequest(f"priority: {text[:40]!r} is not within 0 to {MAX_PRIORITY}", "BAD_PRIORITY")
    return int(text)
