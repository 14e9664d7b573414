"""What a data file has, as the queues that it makes at the start, and its rows as messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from stiqueue.dedup import Recent, packed
from stiqueue.engines.journal import Recovered
from stiqueue.engines.queues import Queues
from stiqueue.engines.rows import MAX_ID, Row, read_headers
from stiqueue.entry import Entry, Properties
from stiqueue.limits import headers_size
from stiqueue.run import Run


def restore(recovered: Recovered, queues: Queues, recent: Recent[Any], now: float, wall_ms: int) -> None:
    """Take in what the file has: ready messages by number only, delayed ones whole, and what was asked lately."""
    queues.floor = recovered.floor + 1
    waiting = Counter(lane.no for lane, _ in recovered.delayed)
    for lane in recovered.lanes:
        queue = queues.make(lane.queue)
        queue.next_id = max(queue.next_id, lane.last_id + 1)
        queue.pending.restore(lane.priority, lane.messages - waiting[lane.no], lane.bytes)
    for lane, row in recovered.delayed:
        assert row.due_ms is not None
        queue = queues.make(lane.queue)
        queue.due_ms[row.id] = row.due_ms
        entry = Reader(lane.priority, now, wall_ms).entry(row)
        queue.pending.restore_delayed(entry, now + (row.due_ms - wall_ms) / 1000, now)
    for request in recovered.requests:
        recent.remember(request.queue, request.request_id, packed(request.first_id, request.count), now)


class Reader:
    """Makes messages of rows; those of one batch share their properties, as they did when they came."""

    def __init__(self, priority: int, now: float, wall_ms: int) -> None:
        """Make messages of `priority`; `now` and `wall_ms` are the same moment by both clocks."""
        self._priority = priority
        self._now = now
        self._wall_ms = wall_ms
        self._like: tuple[int, str | None, int | None] | None = None
        self._properties = Properties(0)

    def entry(self, row: Row) -> Entry:
        """Return the message that `row` has."""
        return self.runs([row])[0].head()

    def runs(self, rows: Iterable[Row]) -> list[Run]:
        """Return the messages that `rows` have, in rising order of keys."""
        made: list[Run] = []
        bodies: list[bytes] = []
        start = next_key = attempt = 0
        for key, time_ms, tried, _, expires_ms, text, _, body in rows:
            like = (time_ms, text, expires_ms)
            if key != next_key or tried != attempt or like != self._like:
                if bodies:
                    made.append(Run(start & MAX_ID, bodies, self._properties, attempt))
                start, attempt, bodies = key, tried, []
                if like != self._like:
                    self._like, self._properties = like, self._shared(*like)
            bodies.append(body)
            next_key = key + 1
        if bodies:
            made.append(Run(start & MAX_ID, bodies, self._properties, attempt))
        return made

    def _shared(self, time_ms: int, text: str | None, expires_ms: int | None) -> Properties:
        headers = read_headers(text)
        expires_at = None if expires_ms is None else self._now + (expires_ms - self._wall_ms) / 1000
        return Properties(time_ms, self._priority, headers, headers_size(headers), expires_at, expires_ms)
