"""The metadata and durations that both sides write and read."""

from __future__ import annotations

from typing import Any

from google.protobuf.duration_pb2 import Duration

from stiqueue.errors import InvalidRequest
from stiqueue.v1 import pipe_pb2
from stiqueue.v1 import queue_pb2 as pb

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["QueueService"].full_name
PIPE_SERVICE_NAME = pipe_pb2.DESCRIPTOR.services_by_name["PipeService"].full_name
VERSION_KEY = "stiqueue-version"
"""The initial metadata that a server sends as soon as it has accepted a `Deq`, before there is any message."""

AUTHORIZATION_KEY = "authorization"
"""The metadata with the token of a call, as for HTTP: ``Bearer`` and the token."""


MAX_NANOS = 999_999_999


def seconds(name: str, duration: Duration) -> float:
    """Return the Duration in the field `name` in seconds.

    Raises:
        InvalidRequest: its `nanos` are not within 0 to 999,999,999, so it is not a well-formed Duration of 0 or more.
    """
    if not 0 <= duration.nanos <= MAX_NANOS:
        raise InvalidRequest(f"{name}: nanos of {duration.nanos} are not within 0 to {MAX_NANOS}", "BAD_DURATION")
    return duration.seconds + duration.nanos / 1e9


def duration(value: float) -> Duration:
    """Return `value` seconds as a Duration."""
    whole = int(value // 1)
    return Duration(seconds=whole, nanos=int((value - whole) * 1e9))


def was_connected(metadata: Any) -> bool:
    """Return whether the initial metadata of a `Deq` call are those of a server that accepted it."""
    return any(key == VERSION_KEY for key, _ in metadata or ())


def bearer(metadata: Any) -> str:
    """Return the token in the metadata of a call; an empty string when there is none."""
    for key, value in metadata or ():
        if key == AUTHORIZATION_KEY and isinstance(value, str):
            scheme, _, token = value.partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
