"""Which runs were enqueued: marks, kept as messages in a queue, so that runners need no file of their own.

A server remembers request ids for 5 minutes at least. That keeps a run from coming twice while runners are alive; marks
do so after a longer time. Each run that would be made up for is marked once it is enqueued. Nobody takes marks: runners
peek at them when they start, and when a run is so late that its request id may be forgotten.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from stiqueue.client.base import BaseClient
from stiqueue.cron.entry import Entry
from stiqueue.cron.times import shown
from stiqueue.errors import AccessDenied, NotSupported
from stiqueue.limits import DAY, MAX_TTL
from stiqueue.message import PeekedMessage, State

TIDY_AFTER = 50
"""After how many marks written a runner joins all marks into one."""
AHEAD_SECONDS = 300.0
"""A mark further in the future was written by a runner with a wrong clock; it is ignored."""

Key = tuple[str, str]
"""The name of an entry, and the text of its times: an entry with new times has no runs behind it."""


class Mark(NamedTuple):
    """The last run of an entry that was enqueued."""

    run: int
    keep_until: int
    """When nobody needs the mark any more. Both in seconds since 1970."""


class Marks:
    """The marks of all runners of one server. Not thread-safe: guarded by its runner's lock."""

    def __init__(self, client: BaseClient, queue: str, logger: logging.Logger) -> None:
        """Keep marks in `queue`."""
        self.queue = queue
        self._client = client
        self._logger = logger
        self._written = TIDY_AFTER  # tidy once at the start
        self.is_denied = False
        """Whether the client has no right to use the queue."""

    def read(self, now: float) -> dict[Key, int]:
        """Return the last run of each entry that was enqueued, as far as the queue knows.

        Raises:
            StiQueueError: the server cannot be asked now.
        """
        if self.is_denied:
            return {}
        try:
            marks = _joined(_parsed(message) for message in self._peek() if not _is_ahead(message, now))
        except (AccessDenied, NotSupported) as error:
            self._deny(error)
            return {}
        return {key: mark.run for key, mark in marks.items()}

    def write(self, entry: Entry, run: int, now: float) -> None:
        """Mark that `run` of `entry` is enqueued.

        Raises:
            StiQueueError: the server cannot be told now.
        """
        if self.is_denied:
            return
        # The mark is asked for until the next run is too late to be made up for.
        keep_until = int(max(now, entry.times.after(run) or run) + entry.within + DAY)
        mark = {(entry.name, entry.times.text): Mark(run, keep_until)}
        try:
            self._enq(mark, now, entry.request_id(run))
        except (AccessDenied, NotSupported) as error:
            self._deny(error)
            return
        self._written += 1
        if self._written >= TIDY_AFTER:
            self._written = 0
            self._tidy(now)

    def _tidy(self, now: float) -> None:
        """Join all marks into one, and drop the others."""
        messages = self._peek()
        # Beside a mark from the future this clock may be the wrong one, and what it would drop is needed.
        if len(messages) < TIDY_AFTER or any(_is_ahead(message, now) for message in messages):
            return
        marks = _joined(_parsed(message) for message in messages)
        self._enq({key: mark for key, mark in marks.items() if mark.keep_until > now}, now)
        # Only those that were seen: a mark that another runner has written meanwhile stays, and ends the loop.
        seen = {message.id for message in messages}
        for message in self._client.consume(prefetch=TIDY_AFTER, timeout=0, queue=self.queue):
            if message.id not in seen:
                break
            message.ack()

    def _peek(self) -> list[PeekedMessage]:
        return self._client.peek_messages(state=State.ALL, queue=self.queue)

    def _enq(self, marks: Mapping[Key, Mark], now: float, request_id: str | None = None) -> None:
        rows = [
            {"name": name, "times": times, "run": mark.run, "time": shown(mark.run), "keep_until": mark.keep_until}
            for (name, times), mark in marks.items()
        ]
        longest = max((mark.keep_until for mark in marks.values()), default=now)
        ttl = min(MAX_TTL, max(1.0, longest - now))
        self._client.enq(json.dumps(rows), queue=self.queue, ttl=ttl, request_id=request_id)

    def _deny(self, error: Exception) -> None:
        self.is_denied = True
        self._logger.warning(
            "no marks in queue %s, so runs are not made up for after a restart, and those that are more than 2 minutes"
            " late may come twice: %s",
            self.queue,
            error,
        )


def _joined(all_marks: Iterable[Mapping[Key, Mark]]) -> dict[Key, Mark]:
    """Return the latest mark of each entry."""
    latest: dict[Key, Mark] = {}
    for marks in all_marks:
        for key, mark in marks.items():
            if key not in latest or mark > latest[key]:
                latest[key] = mark
    return latest


def _is_ahead(message: PeekedMessage, now: float) -> bool:
    return any(mark.run > now + AHEAD_SECONDS for mark in _parsed(message).values())


def _parsed(message: PeekedMessage) -> dict[Key, Mark]:
    """Return the marks in a message; none if something else has got into the queue."""
    try:
        rows: list[dict[str, Any]] = json.loads(message)
        return {(str(row["name"]), str(row["times"])): Mark(int(row["run"]), int(row["keep_until"])) for row in rows}
    except (ValueError, TypeError, KeyError, RecursionError):
        return {}
