"""The settings of queues."""

from __future__ import annotations

from collections.abc import Sequence

from stiqueue.arguments import check_kind, check_seconds, check_text, check_whole, shown
from stiqueue.errors import InvalidRequest
from stiqueue.limits.operations import MAX_ACK_TIMEOUT, MAX_DELAY, MAX_TTL, MIN_ACK_TIMEOUT
from stiqueue.limits.queue_names import check_pattern, queue_name
from stiqueue.message import DEAD_SUFFIX
from stiqueue.queue_settings import SETTINGS, QueueSettings

MAX_ATTEMPTS = 1_000_000
MAX_SETTING = 1 << 62
EVERYTHING = "*"
"""The pattern of all queues; in a `reset`, all settings."""


def check_settings(settings: QueueSettings, reset: Sequence[str] = ()) -> None:
    """Check the type and the range of every setting.

    Raises:
        InvalidRequest: one is wrong; names it and its range.
    """
    check_pattern(settings.queue)
    if settings.paused is not None and not isinstance(settings.paused, bool):
        check_kind("paused", settings.paused, bool, "True or False", "BAD_SETTING")
    if settings.resume_after is not None:
        if not settings.paused:
            raise InvalidRequest("resume_after: it goes with paused", "BAD_SETTING")
        check_seconds("resume_after", settings.resume_after, MAX_DELAY, positive=True)
    for name, most in (
        ("max_attempts", MAX_ATTEMPTS),
        ("max_messages", MAX_SETTING),
        ("max_bytes", MAX_SETTING),
        ("max_leased", MAX_SETTING),
    ):
        if (value := getattr(settings, name)) is not None:
            check_whole(name, value, 0, most, "BAD_SETTING")
    if settings.ack_timeout is not None and settings.ack_timeout != 0:
        check_seconds("ack_timeout", settings.ack_timeout, MAX_ACK_TIMEOUT, least=MIN_ACK_TIMEOUT)
    if settings.ttl is not None:
        check_seconds("ttl", settings.ttl, MAX_TTL)
    if settings.dead_letter_queue is not None and settings.dead_letter_queue != "":
        check_text("dead_letter_queue", settings.dead_letter_queue, "BAD_SETTING")
        queue_name(settings.dead_letter_queue)
        if not settings.dead_letter_queue.endswith(DEAD_SUFFIX):
            # Where dead letters stay: elsewhere they would die again, and perhaps in a circle.
            raise InvalidRequest(
                f"dead_letter_queue: {settings.dead_letter_queue!r} does not end with {DEAD_SUFFIX}", "BAD_SETTING"
            )
    for name in reset:
        if name not in (EVERYTHING, *SETTINGS):
            known = ", ".join(SETTINGS)
            raise InvalidRequest(f"reset: {shown(name)} is not a setting; they are {known}", "BAD_SETTING")
        if name != EVERYTHING and getattr(settings, name) is not None:
            raise InvalidRequest(f"reset: {name} is both set and reset", "BAD_SETTING")
