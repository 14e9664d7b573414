"""Looking at a queue without taking anything, chunk by chunk, so that nobody is held up."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future

from stiqueue.clock import Clock
from stiqueue.engines.consumer import Queue
from stiqueue.entry import Entry, Peeked
from stiqueue.message import Counts, PeekQuery, State
from stiqueue.pending import Pending

CHUNK_MESSAGES = 1_000
"""Most messages that are looked at in one step."""

Load = Callable[[Queue, int, int, int], Future[list[Entry]]]
"""Reads messages that are not in memory: of a queue and priority, above an id, up to a number."""
Steps = Generator[list[Peeked] | Future[list[Entry]], list[Entry] | None, None]
"""Yields chunks; a Future it yields is to be answered with its result."""


def peek(lock: threading.Lock, queue: Queue, query: PeekQuery, clock: Clock, load: Load) -> Steps:
    """Iterate over what `query` asks for; `lock` is held for one chunk at a time."""
    left = query.limit or float("inf")
    steps = _each(lock, queue, query, clock, load)
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        if isinstance(step, Future):
            answer = yield step
            continue
        answer = None
        chunk = [peeked for peeked in step if peeked.entry.id > query.after_id][: int(min(left, len(step)))]
        left -= len(chunk)
        if chunk:
            yield chunk
        if left <= 0:
            return


def run(steps: Steps, timeout: float) -> Iterator[list[Peeked]]:
    """Iterate over the chunks in a thread, which waits up to `timeout` seconds for each of what must be loaded."""
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        answer = step.result(timeout) if isinstance(step, Future) else None
        if isinstance(step, list):
            yield step


async def run_async(steps: Steps) -> AsyncIterator[list[Peeked]]:
    """Iterate over the chunks on an event loop, on which others have their turn between them."""
    answer: list[Entry] | None = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        if isinstance(step, Future):
            answer = await asyncio.shield(asyncio.wrap_future(step))
            continue
        answer = None
        yield step
        await asyncio.sleep(0)


def _each(lock: threading.Lock, queue: Queue, query: PeekQuery, clock: Clock, load: Load) -> Steps:
    pending, wanted = queue.pending, query.state
    with lock:
        now, wall_ms = clock.monotonic(), int(clock.wall() * 1000)
        leased = _leased(pending, now, wall_ms) if wanted in (State.LEASED, State.ALL) else []
        delayed = _delayed(pending, now, wall_ms) if wanted in (State.DELAYED, State.ALL) else []
        priorities = list(pending.lanes) if wanted in (State.READY, State.ALL) else []
    yield from _chunks(leased)
    for priority in priorities:
        last = query.after_id
        while True:
            with lock:
                chunk = pending.peek_ready(priority, last, CHUNK_MESSAGES)
                edge, stored = pending.lanes[priority].edge, pending.lanes[priority].stored
            if not chunk and stored:
                # What memory has ends here; the rest is only in the journal.
                chunk = (yield load(queue, priority, max(last, edge), CHUNK_MESSAGES)) or []
            if not chunk:
                break
            last = chunk[-1].id
            yield [_ready(entry, wall_ms) for entry in chunk]
    yield from _chunks(delayed)


def _ready(entry: Entry, wall_ms: int) -> Peeked:
    return Peeked(entry, State.READY, state_age_ms=max(0, wall_ms - entry.properties.enqueue_time_ms))


def _chunks(items: list[Peeked]) -> Iterator[list[Peeked]]:
    for start in range(0, len(items), CHUNK_MESSAGES):
        yield items[start : start + CHUNK_MESSAGES]


def counts(pending: Pending, now: float, wall_ms: int) -> Counts:
    """Return the counts of this moment."""
    heads = [head for lane in pending.lanes.values() if (head := lane.head())]
    oldest = min((head.properties.enqueue_time_ms for head in heads), default=wall_ms)
    since = min((next(iter(owner.held.values())).since for owner in pending.holders), default=now)
    return Counts(
        queue=pending.name,
        ready=pending.ready,
        leased=pending.leased,
        delayed=pending.delayed,
        consumers=len(pending.owners),
        bytes=pending.bytes,
        oldest_ready_age_ms=max(0, wall_ms - oldest),
        oldest_lease_age_ms=int((now - since) * 1000),
        enqueued=pending.enqueued,
        acked=pending.acked,
        requeued=pending.requeued,
        expired=pending.expired,
        dead_lettered=pending.dead_lettered,
    )


def _leased(pending: Pending, now: float, wall_ms: int) -> list[Peeked]:
    """Return the leased messages, ordered by id."""
    seen = [
        Peeked(
            lease.entry_after(),
            State.LEASED,
            owner.name,
            int((now - lease.since) * 1000),
            0 if (when := pending.deadlines.when(lease.lease_id)) is None else wall_ms + int((when - now) * 1000),
        )
        for owner in pending.holders
        for lease in owner.held.values()
    ]
    return sorted(seen, key=lambda peeked: peeked.entry.id)


def _delayed(pending: Pending, now: float, wall_ms: int) -> list[Peeked]:
    """Return the delayed messages in the order in which they will be ready and delivered."""
    alarms = sorted(pending.due.items(), key=lambda alarm: (alarm[0], -alarm[1].properties.priority, alarm[1]))
    return [
        Peeked(
            entry,
            State.DELAYED,
            state_age_ms=max(0, wall_ms - entry.properties.enqueue_time_ms),
            ready_time_ms=wall_ms + int((due - now) * 1000),
        )
        for due, entry in alarms
    ]
