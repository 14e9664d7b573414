"""The rows of a data file as messages, and its content as an engine restores it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import LaneName
from stiqueue.engines.local.log import Kept, KeptLane, KeptUnique
from stiqueue.engines.sqlite.rows import ID_BITS, MAX_ID, Row, read_headers, read_unique_key
from stiqueue.engines.sqlite.store import Store
from stiqueue.engines.sqlite.writer import Writer
from stiqueue.limits import headers_size
from stiqueue.rules.entry import Entry, Properties
from stiqueue.rules.recent import REMEMBERED_SECONDS
from stiqueue.rules.run import Run


def kept(writer: Writer, store: Store, clock: Clock) -> Kept:
    """Return the content of a file: ready messages by number only, delayed ones whole."""
    now, wall_ms = clock.monotonic(), int(clock.wall() * 1000)
    lanes = {lane.no: lane for lane in writer.lanes.values()}
    delayed = [(lanes[row.key >> ID_BITS], row) for row in store.delayed()]
    waiting = Counter(lane.no for lane, _ in delayed)
    oldest_ms = wall_ms - int(REMEMBERED_SECONDS * 1000)
    edges = {no: max(0, first - 1) for no, first in store.first_ids().items()}
    return Kept(
        [KeptLane(x.name, x.messages - waiting[x.no], x.bytes, x.last_id, edges.get(x.no, 0)) for x in lanes.values()],
        writer.floor,
        [(lane.queue, row.due_ms or 0, Reader(lane.name, now, wall_ms).entry(row)) for lane, row in delayed],
        [request[:4] for request in store.requests() if request.time_ms >= oldest_ms],
        [row.policy() for row in store.settings()],
        [
            KeptUnique(lanes[key >> ID_BITS].queue, key & MAX_ID, unique_key, end)
            for key, unique_key, end in store.unique_keys()
        ],
    )


class Reader:
    """Turns rows into messages; those of one batch share their properties, as they did when they were enqueued."""

    def __init__(self, lane: LaneName, now: float, wall_ms: int) -> None:
        """Make messages of `lane`; `now` and `wall_ms` are the same moment by both clocks."""
        self._lane = lane
        self._now = now
        self._wall_ms = wall_ms
        self._like: tuple[int, str | None, int | None] | None = None
        self._properties = Properties(0)

    def entry(self, row: Row) -> Entry:
        """Return the message of a row."""
        return self.runs([row])[0].head()

    def runs(self, rows: Iterable[Row]) -> list[Run]:
        """Return the messages of rows, which have rising keys."""
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
        size, (_, priority, key) = headers_size(headers), self._lane
        return Properties(time_ms, priority, headers, size, expires_at, expires_ms, key, read_unique_key(text))
