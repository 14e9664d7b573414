"""Looking without taking: `cnt`, `counts`, `queues`, `peek` and `peek_messages`, for every client."""

from __future__ import annotations

from typing import Any

from stiqueue.arguments import check_text, encoded
from stiqueue.client.session import Session
from stiqueue.limits import count_of
from stiqueue.message import Counts, PeekedMessage, PeekQuery, State


async def cnt(session: Session[Any], /, *, queue: str | None = None, timeout: float | None = None) -> int:
    """Return how many messages are ready now (not leased, not delayed)."""
    return (await counts(session, queue=queue, timeout=timeout)).ready


async def counts(session: Session[Any], /, *, queue: str | None = None, timeout: float | None = None) -> Counts:
    """Return all counts of one queue."""
    options = session.options
    return (await session.connected().counts([options.queue_of(queue)], options.timeout_of(timeout)))[0]


async def queues(session: Session[Any], /, *, timeout: float | None = None) -> dict[str, Counts]:
    """Return the counts of every queue in use, by name."""
    found = await session.connected().counts([], session.options.timeout_of(timeout))
    return {each.queue: each for each in found}


async def peek(
    session: Session[Any], /, n: int = 0, sep: str = ",", *, queue: str | None = None, timeout: float | None = None
) -> bytes:
    """Return the bodies of the next `n` ready messages (0: all), joined by `sep`; nothing is taken."""
    check_text("sep", sep, "BAD_OPTION")
    return encoded("sep", sep, "BAD_OPTION").join(await peek_messages(session, n, queue=queue, timeout=timeout))


async def peek_messages(
    session: Session[Any],
    /,
    n: int = 0,
    *,
    state: State = State.READY,
    after_id: int = 0,
    after_priority: int | None = None,
    queue: str | None = None,
    timeout: float | None = None,
) -> list[PeekedMessage]:
    """Return up to `n` messages (0: all) and where they stand; nothing is taken.

    Args:
        n: how many at the most; below 1: all.
        state: which messages; `State.ALL`: leased, then ready in the order of delivery, then delayed.
        after_id: only messages with a greater id.
        after_priority: 0 to 255; then only messages of a lower priority, and those of this one with an id greater than
            `after_id`. To page through several priorities, give both of the last message. None: any priority.
        queue: the queue; default: the client's.
        timeout: seconds to wait for an absent server; default: the client's.
    """
    query = PeekQuery(session.options.queue_of(queue), count_of(n), after_id, state, after_priority)
    return await session.connected().peek(query, session.options.timeout_of(timeout))
