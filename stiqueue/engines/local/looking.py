"""Peeks and counts: a queue is read in chunks, so that nobody waits for long."""

from __future__ import annotations

import asyncio
import heapq
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from concurrent.futures import Future

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.consumer import Queue
from stiqueue.engines.local.enforcement import Enforcement
from stiqueue.engines.local.queues import Queues
from stiqueue.engines.local.reader import Reader
from stiqueue.message import Counts, PeekQuery, State
from stiqueue.rules.backlog import Backlog
from stiqueue.rules.entry import Entry, Peeked

CHUNK_MESSAGES = 1_000
"""The most messages in one chunk."""
LEAST_MESSAGES = 20
"""The fewest messages read at a time: with a smaller limit too, because a look skips some that it reads."""

Load = Callable[[Queue, int, str, int, int], Future[list[Entry]]]
"""Reads messages that are not in memory: of a queue, priority and key (or without one), above an id, up to a number."""
Steps = Generator[list[Peeked] | Future[list[Entry]], list[Entry] | None, None]
"""Yields chunks, and Futures whose results are to be sent back."""


class Looking:
    """Counts and shows the messages of one engine. Thread-safe."""

    def __init__(
        self, lock: threading.Lock, clock: Clock, queues: Queues, enforcement: Enforcement, reader: Reader | None
    ) -> None:
        """Look at `queues`; `lock` is the engine's. `reader` is None if messages are in memory alone."""
        self._lock = lock
        self._clock = clock
        self._queues = queues
        self._enforcement = enforcement
        self._load = None if reader is None else reader.load

    def counts(self, queues: Sequence[str]) -> list[Counts]:
        """Return the counts of `queues`; without any, of all that are in use."""
        with self._lock:
            now, wall_ms = self._clock.monotonic(), int(self._clock.wall() * 1000)
            asked = [(name, self._queues.get(name)) for name in queues] or sorted(
                (queue.name, queue) for queue in self._queues.each() if queue.in_use
            )
            return [
                counts(queue, now, wall_ms) if queue else self._enforcement.no_counts(name) for name, queue in asked
            ]

    def peek(self, query: PeekQuery) -> Steps:
        """Iterate over the messages that `query` asks for."""
        queue = self._queues.get(query.queue)
        if queue is not None:
            yield from peek(self._lock, queue, query, self._clock, self._load)


def peek(lock: threading.Lock, queue: Queue, query: PeekQuery, clock: Clock, load: Load | None) -> Steps:
    """Iterate over the messages that `query` asks for, holding `lock` for one chunk at a time."""
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
        chunk = [peeked for peeked in step if _is_after(query, peeked.entry)][: int(min(left, len(step)))]
        left -= len(chunk)
        yield chunk  # an empty one, too: the event loop runs others after each
        if left <= 0:
            return


def run(steps: Steps, timeout: float) -> Iterator[list[Peeked]]:
    """Iterate over the chunks in a thread; wait up to `timeout` seconds for each page of the log."""
    answer = None
    while True:
        try:
            step = steps.send(answer)
        except StopIteration:
            return
        answer = step.result(timeout) if isinstance(step, Future) else None
        if isinstance(step, list) and step:
            yield step


async def run_async(steps: Steps) -> AsyncIterator[list[Peeked]]:
    """Iterate over the chunks on an event loop, giving way to others between them."""
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
        if step:
            yield step
        await asyncio.sleep(0)


def _each(lock: threading.Lock, queue: Queue, query: PeekQuery, clock: Clock, load: Load | None) -> Steps:
    backlog, wanted = queue.backlog, query.state
    with lock:
        now, wall_ms = clock.monotonic(), int(clock.wall() * 1000)
        leased = _leased(backlog, now, wall_ms) if wanted in (State.LEASED, State.ALL) else []
        places = backlog.unheld.due.first(_most_delayed(query)) if wanted in (State.DELAYED, State.ALL) else []
        priorities = backlog.ready.priorities if wanted in (State.READY, State.ALL) else []
    # Some of these may become ready between two chunks; each is shown once.
    once = {peeked.entry.id for peeked in leased}
    later = {message_id for _, message_id in places} if priorities else set()
    yield from _chunks(leased)
    size = min(max(query.limit, LEAST_MESSAGES), CHUNK_MESSAGES) if query.limit else CHUNK_MESSAGES
    for priority in priorities:
        after_id = query.after_id_of(priority)
        if after_id is None:
            continue
        steps = _ready(lock, queue, priority, after_id, load, size)
        answer = None
        while True:
            try:
                step = steps.send(answer)
            except StopIteration:
                break
            if isinstance(step, Future):
                answer = yield step
                continue
            answer = None
            with lock:
                blocked = {entry.id for entry in step if entry.properties.key and backlog.ready.is_blocked(entry)}
            shown = [entry for entry in step if entry.id not in once]
            once |= {entry.id for entry in shown if entry.id in later}
            yield [_shown(entry, wall_ms, entry.id in blocked) for entry in shown]
    for found in _delayed(lock, backlog, places):
        chunk: list[Peeked] = []
        for due, entry in found:
            if entry.id in once:
                continue
            if due is not None:
                chunk.append(_waiting(entry, wall_ms, due - now))
            elif priorities:  # it became ready behind the place that was looked at by then
                once.add(entry.id)
                with lock:
                    is_blocked = backlog.ready.is_blocked(entry)
                chunk.append(_shown(entry, wall_ms, is_blocked))
        yield chunk


def _most_delayed(query: PeekQuery) -> int | None:
    """Return how many of the earliest delayed messages suffice; None: all are needed."""
    is_filtered = query.after_id > 0 or query.after_priority is not None
    return query.limit if 0 < query.limit <= CHUNK_MESSAGES and not is_filtered else None


def _is_after(query: PeekQuery, entry: Entry) -> bool:
    after_id = query.after_id_of(entry.properties.priority)
    return after_id is not None and entry.id > after_id


def _ready(
    lock: threading.Lock, queue: Queue, priority: int, last: int, load: Load | None, size: int
) -> Generator[list[Entry] | Future[list[Entry]], list[Entry] | None, None]:
    """Yield the ready messages of a priority in the order of ids, about `size` at a time.

    Those in memory are merged with those in the log.
    """
    backlog = queue.backlog
    loaded: dict[int, Entry] = {}
    with lock:
        stored = backlog.ready.stored(priority)
    heapq.heapify(stored)
    while True:
        with lock:
            chunk = backlog.ready.peek(priority, last, size)
        found = {**loaded, **{entry.id: entry for entry in chunk}}
        first = min(found, default=float("inf"))
        has_moved = False
        while stored and stored[0][0] < first and load is not None:
            edge, key = heapq.heappop(stored)
            with lock:
                now = backlog.ready.edge(priority, key)
            # Others were read into memory, perhaps after `chunk` was.
            has_moved = has_moved or now is None or now > edge
            if now is None:
                continue
            page = yield load(queue, priority, key, max(edge, now, last), size)
            if page:
                with lock:
                    gone = backlog.ready.gone(priority, key)
                found |= {entry.id: entry for entry in page if entry.id not in gone}
                first = min(first, page[0].id)
                heapq.heappush(stored, (page[-1].id, key))
        if has_moved:
            with lock:
                chunk = backlog.ready.peek(priority, last, size)
            found |= {entry.id: entry for entry in chunk}
        # Up to here all are found: a full chunk has others behind it, and so has what is stored.
        end = float("inf") if len(chunk) < size else chunk[-1].id
        if stored:
            end = min(end, stored[0][0])
        ids = sorted(each for each in found if each <= end)
        if not ids:
            return
        last = ids[-1]
        loaded = {each: entry for each, entry in found.items() if each > last}
        yield [found[each] for each in ids]


def _shown(entry: Entry, wall_ms: int, blocked: bool) -> Peeked:
    age_ms = max(0, wall_ms - entry.properties.enqueue_time_ms)
    return Peeked(entry, State.READY, state_age_ms=age_ms, blocked=blocked)


def _chunks(items: list[Peeked]) -> Iterator[list[Peeked]]:
    for start in range(0, len(items), CHUNK_MESSAGES):
        yield items[start : start + CHUNK_MESSAGES]


def counts(queue: Queue, now: float, wall_ms: int) -> Counts:
    """Return the counts of a queue."""
    backlog = queue.backlog
    oldest = min((head.properties.enqueue_time_ms for head in backlog.ready.heads()), default=wall_ms)
    since = min((next(iter(owner.held.values())).since for owner in backlog.in_flight.holders), default=now)
    return Counts(
        queue=backlog.name,
        ready=len(backlog.ready),
        leased=len(backlog.in_flight),
        delayed=len(backlog.unheld.due),
        consumers=len(queue.consumers),
        bytes=backlog.tally.bytes,
        oldest_ready_age_ms=max(0, wall_ms - oldest),
        oldest_lease_age_ms=int((now - since) * 1000),
        enqueued=backlog.tally.enqueued,
        acked=backlog.tally.acked,
        requeued=backlog.tally.requeued,
        expired=backlog.tally.expired,
        dead_lettered=backlog.tally.dead_lettered,
        paused=backlog.paused,
        paused_ms=0 if backlog.resumes_at is None else max(1, round((backlog.resumes_at - now) * 1000)),
        blocked=backlog.ready.strands.blocked,
    )


def _leased(backlog: Backlog, now: float, wall_ms: int) -> list[Peeked]:
    """Return the leased messages, ordered by id."""
    deadline = backlog.in_flight.deadlines.when
    seen = [
        Peeked(
            lease.entry_after(),
            State.LEASED,
            owner.name,
            int((now - lease.since) * 1000),
            0 if (when := deadline(lease.lease_id)) is None else wall_ms + int((when - now) * 1000),
        )
        for owner in backlog.in_flight.holders
        for lease in owner.held.values()
    ]
    return sorted(seen, key=lambda peeked: peeked.entry.id)


def _delayed(
    lock: threading.Lock, backlog: Backlog, places: list[tuple[float, int]]
) -> Iterator[list[tuple[float | None, Entry]]]:
    """Yield chunks of (due, message) for a heap of places; due is None where the message is ready now."""
    last = None
    while places:
        chunk = [heapq.heappop(places) for _ in range(min(len(places), CHUNK_MESSAGES))]
        found: list[tuple[float | None, Entry]] = []
        with lock:
            for place in chunk:
                due, message_id = place
                when = backlog.unheld.due.when(message_id)
                entry = backlog.unheld.find(message_id) if when in (None, due) and place != last else None
                last = place
                if entry is not None:
                    found.append((when, entry))
        yield found


def _waiting(entry: Entry, wall_ms: int, seconds: float) -> Peeked:
    age_ms = max(0, wall_ms - entry.properties.enqueue_time_ms)
    return Peeked(entry, State.DELAYED, state_age_ms=age_ms, ready_time_ms=wall_ms + int(seconds * 1000))
