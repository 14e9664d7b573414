"""The runner of a schedule: `Schedule`."""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from stiqueue.arguments import check_kind, check_logger
from stiqueue.client.base import BaseClient
from stiqueue.cron.entry import LATE_SECONDS, Entry, Missed
from stiqueue.cron.line import Line, Status
from stiqueue.cron.marks import AHEAD_SECONDS, Marks
from stiqueue.cron.reading import MARKS, BadSchedule, read_entry, read_file
from stiqueue.cron.times import shown
from stiqueue.errors import Closed, InvalidRequest, NotSupported, StiQueueError, Unavailable
from stiqueue.limits import queue_name
from stiqueue.wire.credentials import FileWatch

FORGETTABLE_SECONDS = 120.0
"""How late a run may be before marks are asked for it. A server remembers request ids for 300 s; clocks that differ by
120 s, and a request that is repeated for a while, leave so much."""
LOOK_SECONDS = 1.0
"""The longest time between two looks at the clock, which may be set, and at the file."""
RETRY_SECONDS = 1.0
AT_ONCE = 100
"""How many runs of one entry are enqueued before it is the turn of the next."""
REMIND_SECONDS = 60.0
"""How often a failure that lasts is logged."""
LOGGER = logging.getLogger("stiqueue.cron")


class Schedule:
    """Enqueues jobs at their times: ``Schedule(SQClient(), "cron.toml").run()``.

    Run it on any number of machines at once: there is no leader, and each run comes once, because all of them enqueue
    it under the same `request_id`. Needs the extra ``cron``. docs/cron.md has the file, and what is promised.
    """

    def __init__(
        self,
        client: BaseClient,
        file: str | os.PathLike[str] | None = None,
        *,
        logger: logging.Logger | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Read the file; nothing is asked of the server yet.

        Args:
            client: an `SQClient` or `LocalSQClient`; it is left open.
            file: a TOML file, which is read again when it changes; default: only jobs given to `add`.
            logger: where it logs; default: the logger "stiqueue.cron".
            clock: returns seconds since 1970; for tests.

        Raises:
            BadSchedule: the file has mistakes; its `mistakes` names them all.
        """
        check_kind("client", client, BaseClient, "an SQClient or a LocalSQClient")
        if not client.ack_required:
            raise InvalidRequest("client: it has ack_required=False, which would lose marks", "BAD_OPTION")
        if logger is not None:
            check_logger(logger)
        self._client, self._clock = client, clock
        self._logger = logger or LOGGER
        self._marks = Marks(client, MARKS, self._logger)
        self._lock = threading.Lock()
        """Protects `_lines`. What is in a line is for the thread that runs; others may read it."""
        self._lines: dict[str, Line] = {}
        self._added: dict[str, Entry] = {}
        """The jobs given to `add`, which stay when the file changes."""
        self._path = None if file is None else os.fspath(file)
        self._watch = None if self._path is None else FileWatch(self._path)
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()  # its `put` is safe in a signal handler
        self._is_stopping = False
        self._told: tuple[str, float] = ("", 0.0)
        """The last failure that was logged, and when; monotonic."""
        self.has_mistakes = False
        """Whether the file has changed and has mistakes, so that what it said before is still in force."""
        if self._path is not None:
            self._use_file(self._path)

    def add(self, name: str, **table: Any) -> None:
        """Add a job, or replace that of the same name: ``add("nightly", cron="0 3 * * *", queue="reports")``.

        Args:
            name: what tells its runs from those of others; 1 to 100 of A-Z a-z 0-9 . _ -
            table: the other keys of an ``[[entry]]`` of a file, see docs/cron.md.

        Raises:
            BadSchedule: something is wrong; its `mistakes` names it all.
        """
        self._added[name] = read_entry({"name": name, **table})
        self._use([*(entry for entry in self.entries if entry.name != name), self._added[name]])

    @property
    def entries(self) -> list[Entry]:
        """The jobs in force."""
        with self._lock:
            return [line.entry for line in self._lines.values()]

    def upcoming(self, after: float | None = None) -> Iterator[tuple[int, Entry]]:
        """Iterate over the runs after a time (default: now), in order: their times in seconds since 1970, their jobs.

        It never ends while there is a job that comes again; use `itertools.islice`.
        """
        start = self._clock() if after is None else after
        return heapq.merge(*(_runs(entry, start) for entry in self.entries), key=lambda run: run[0])

    def status(self) -> list[Status]:
        """Return what has become of each job in this process. From any thread."""
        with self._lock:
            return [
                Status(name, line.next_run, line.last_run, line.runs, line.left_out, line.failures)
                for name, line in self._lines.items()
            ]

    def run(self) -> None:
        """Enqueue runs when they are due, until `stop`.

        An absent server is waited for, for ever; what was missed meanwhile is made up for as each job says.

        Raises:
            Closed: the client was closed.
        """
        while not self._is_stopping:
            wait = self.enq_due()
            try:
                self._wake.get(timeout=wait)
            except queue.Empty:
                continue

    def stop(self) -> None:
        """Let `run` return. From any thread, also from a signal handler."""
        self._is_stopping = True
        self._wake.put(None)

    def enq_due(self) -> float:
        """Enqueue the runs that are due now; return in how many seconds to call it again. `run` does so."""
        if self._path is not None and self._watch is not None and self._watch.has_changed():
            self._reread(self._path)
        with self._lock:
            lines = list(self._lines.values())
        try:
            is_behind = self._enq_due(lines)
        except Unavailable as error:
            self._tell(f"waiting for the server: {error}")
            return RETRY_SECONDS
        if is_behind:
            return 0.0
        now, monotonic = self._clock(), time.monotonic()
        waits = [max(run - now, line.retry_at - monotonic) for line in lines if (run := line.next_run) is not None]
        return max(0.0, min([LOOK_SECONDS, *waits]))

    def _enq_due(self, lines: list[Line]) -> bool:
        """Enqueue what is due; return whether more is due already."""
        now = self._clock()
        for line in lines:
            if line.since is not None and line.since > now + AHEAD_SECONDS:
                self._logger.warning("the clock was set back by more than 5 minutes; %s goes by it", line.entry.name)
                line.since = now
        if any(line.since is None or self._may_be_forgotten(line, now) for line in lines):
            self._ask(lines, now)
        is_behind = False
        for line in lines:
            if self._is_stopping:
                break
            if line.retry_at > time.monotonic():
                continue
            try:
                is_behind |= self._enq_line(line)
            except (Unavailable, Closed):
                line.failures += 1
                raise
            except StiQueueError as error:  # of this entry, such as a full queue; others go on
                line.failures += 1
                line.retry_at = time.monotonic() + RETRY_SECONDS
                self._tell(f"{line.entry.name}: {error}")
        return is_behind

    @staticmethod
    def _may_be_forgotten(line: Line, now: float) -> bool:
        run = line.next_run
        return line.is_marked and run is not None and run < now - FORGETTABLE_SECONDS

    def _ask(self, lines: Iterable[Line], now: float) -> None:
        """Learn what others have enqueued."""
        marks = self._marks.read(now) if any(line.is_marked for line in lines) else {}
        for line in lines:
            marked = marks.get(line.key) if line.is_marked else None
            if marked is not None:
                line.since = max(marked, line.since or 0.0)
            elif line.since is None and line.is_marked and not self._marks.is_denied:
                # Nobody knows of it: it begins now, and that is marked, so that a first run can be missed as well.
                line.since, line.is_unmarked = now, True
            elif line.since is None:  # it may be new: only its last run may be late, and it has missed no others
                late = list(line.entry.times.between(now - LATE_SECONDS, now))
                is_last = len(late) > 1 and line.entry.missed is not Missed.ALL
                line.since = late[-2] if is_last else now - LATE_SECONDS

    def _enq_line(self, line: Line) -> bool:
        """Enqueue what is due of one entry; return whether more is due already."""
        entry, now = line.entry, self._clock()
        assert line.since is not None
        self._mark(line, now)
        due = entry.due(line.since, now)
        for run in due.runs[:AT_ONCE]:
            self._enq(line, run, now)
            line.since, line.is_unmarked = run, line.is_marked
            self._mark(line, self._clock())
        if len(due.runs) > AT_ONCE:
            return True
        if due.left_out:
            line.left_out += due.left_out
            self._logger.warning("%s: %d missed runs are not made up for", entry.name, due.left_out)
        line.since = max(line.since, due.until or 0, now - entry.within)
        return False

    def _enq(self, line: Line, run: int, now: float) -> None:
        entry = line.entry
        try:
            self._client.enq(
                entry.body,
                queue=entry.queue,
                priority=entry.priority,
                key=entry.key,
                delay=entry.delay(run, now),
                ttl=entry.ttl,
                headers=entry.headers_of(run),
                request_id=entry.request_id(run),
            )
        except (InvalidRequest, NotSupported) as error:  # it would be refused for ever
            line.failures += 1
            self._logger.error("%s at %s is not enqueued: %s", entry.name, shown(run), error)
            return
        line.last_run = run
        line.runs += 1

    def _mark(self, line: Line, now: float) -> None:
        if line.is_unmarked and line.since is not None:
            self._marks.write(line.entry, int(line.since), now)
            line.is_unmarked = False

    def _reread(self, path: str) -> None:
        try:
            self._use_file(path)
        except (BadSchedule, NotSupported) as error:
            self.has_mistakes = True
            for mistake in getattr(error, "mistakes", [str(error)]):
                self._logger.error("nothing was changed: %s", mistake)
        else:
            self.has_mistakes = False
            self._logger.info("read %s: %d entries", path, len(self._lines))

    def _use_file(self, path: str) -> None:
        read = read_file(path)
        self._use([*(entry for entry in read.entries if entry.name not in self._added), *self._added.values()])
        self._marks.queue = queue_name(read.marks)

    def _use(self, entries: Iterable[Entry]) -> None:
        """Put entries in force. One that was there goes on where it is, unless its times are others."""
        with self._lock:
            before, self._lines = self._lines, {}
            for entry in entries:
                line = self._lines[entry.name] = Line(entry)
                old = before.get(entry.name)
                if old is not None and old.key == line.key and old.is_marked == line.is_marked:
                    old.entry = entry
                    self._lines[entry.name] = old

    def _tell(self, text: str) -> None:
        """Log a failure, and again each minute while it lasts."""
        last, at = self._told
        if text != last or time.monotonic() - at >= REMIND_SECONDS:
            self._told = text, time.monotonic()
            self._logger.warning("%s", text)


def _runs(entry: Entry, start: float) -> Iterator[tuple[int, Entry]]:
    return zip(entry.times.between(start, float("inf")), itertools.repeat(entry))
