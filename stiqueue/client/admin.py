"""Settings of queues: `pause`, `resume`, `settings`, `all_settings` and `configure`, for every client."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from stiqueue.arguments import check_kind
from stiqueue.client.session import Session
from stiqueue.limits import check_pattern
from stiqueue.queue_settings import QueueSettings, SettingsReport


async def pause(
    session: Session[Any],
    /,
    seconds: float | None = None,
    *,
    queue: str | None = None,
    timeout: float | None = None,
) -> None:
    """Deliver nothing of a queue, to no consumer, until it is resumed. Messages still come in, and can be settled.

    Args:
        seconds: the time after which the queue goes on by itself, up to 366 days; default: it does not.
        queue: the queue, or a pattern such as ``mail.*``; default: the client's.
        timeout: seconds to wait for an absent server; default: the client's.

    Raises:
        AccessDenied: the client's token lacks the right ``admin``.
        SettingFixed: the server's settings file says whether the queue is paused.
    """
    await _change(session, QueueSettings(_named(session, queue), paused=True, resume_after=seconds), (), timeout)


async def resume(session: Session[Any], /, *, queue: str | None = None, timeout: float | None = None) -> bool:
    """Take a `pause` of the same queue or pattern back.

    Returns:
        Whether the queue delivers now: False if another pattern, which matches its name, pauses it still. Of a
        pattern: True.
    """
    name = _named(session, queue)
    await _change(session, QueueSettings(name), ["paused"], timeout)
    return "*" in name or not (await settings(session, queue=queue, timeout=timeout)).paused


async def settings(
    session: Session[Any], /, *, queue: str | None = None, timeout: float | None = None
) -> QueueSettings:
    """Return the settings that apply to a queue: every one of them is set, if need be to the server's default."""
    name = session.options.queue_of(queue)
    effective = (await session.connected().settings(name, session.options.timeout_of(timeout))).effective
    assert effective is not None
    return effective


async def all_settings(session: Session[Any], /, *, timeout: float | None = None) -> SettingsReport:
    """Return the settings of each name and pattern, made by clients and by the server's settings file."""
    return await session.connected().settings("", session.options.timeout_of(timeout))


async def configure(
    session: Session[Any],
    /,
    *,
    queue: str | None = None,
    paused: bool | None = None,
    max_attempts: int | None = None,
    max_messages: int | None = None,
    max_bytes: int | None = None,
    ack_timeout: float | None = None,
    ttl: float | None = None,
    max_leased: int | None = None,
    dead_letter_queue: str | None = None,
    reset: Iterable[str] = (),
    timeout: float | None = None,
) -> QueueSettings:
    """Change settings of a queue; they are in force at once and kept. See `QueueSettings` for what each means.

    Args:
        queue: the queue, or a pattern such as ``mail.*``; default: the client's.
        paused: whether nothing is delivered; False also where a pattern pauses the queue.
        max_attempts: deliveries before a message moves to the dead letter queue, 0 to 1,000,000; 0: no limit.
        max_messages: the most messages in the queue; 0: no limit.
        max_bytes: the most bytes of bodies and headers in the queue; 0: no limit.
        ack_timeout: seconds until an unsettled message is given back, for consumers that do not say themselves, 0.01 to
            604,800; 0: never.
        ttl: the ttl in seconds of messages that are enqueued without one; 0: for ever.
        max_leased: the most messages that all consumers together may hold; 0: no limit.
        dead_letter_queue: the queue for dead letters, a name that ends with ``.dead``; empty: ``<queue>.dead``.
        reset: names of settings to set no longer; ``"*"``: all.
        timeout: seconds to wait for an absent server; default: the client's.

    Returns:
        All settings of this name or pattern. What is not set is decided by patterns that match, then by the server.

    Raises:
        InvalidRequest: a value has the wrong type or is out of range; nothing was changed.
        AccessDenied: the client's token lacks the right ``admin``.
        SettingFixed: the server's settings file sets one of these; nothing was changed.
    """
    if isinstance(reset, str):
        reset = [reset]
    check_kind("reset", reset, Iterable, 'a list of names such as ["max_attempts"]')
    change = QueueSettings(
        _named(session, queue),
        paused,
        None,
        max_attempts,
        max_messages,
        max_bytes,
        ack_timeout,
        ttl,
        max_leased,
        dead_letter_queue,
    )
    return await _change(session, change, list(reset), timeout)


async def _change(
    session: Session[Any], change: QueueSettings, reset: Iterable[str], timeout: float | None
) -> QueueSettings:
    return await session.connected().configure(change, list(reset), session.options.timeout_of(timeout))


def _named(session: Session[Any], queue: str | None) -> str:
    """Return the queue or pattern that the arguments mean."""
    return session.options.queue_of(None) if queue is None else check_pattern(queue)
