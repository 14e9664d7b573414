"""The log of an engine in a data file: a change is safe once its transaction is on the disk."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from stiqueue.engines.clock import Clock, SystemClock
from stiqueue.engines.local.change import Change, LaneName
from stiqueue.engines.local.log import Failed, Found, Kept, Outcome
from stiqueue.engines.sqlite.journal import Journal
from stiqueue.engines.sqlite.restoring import Reader
from stiqueue.engines.sqlite.rows import Row
from stiqueue.message import Durability
from stiqueue.rules.run import Run


class SqliteLog:
    """A data file; see `stiqueue.engines.local.log.Log`."""

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: Clock | None = None,
        sync: bool = True,
        accept_loss: bool = False,
        logger: logging.Logger | None = None,
        observe: Callable[[int, float], None] | None = None,
    ) -> None:
        """Remember the options; the file is opened by `open`.

        Args:
            path: the data file; made when it does not exist.
            clock: where the time comes from; default: the machine's clocks.
            sync: whether a safe change is on the disk; False: when the operating system sees fit.
            accept_loss: go on with what can be read of a damaged file.
            logger: where it logs; default: the logger "stiqueue".
            observe: called on the journal's thread after each transaction with its number of changes and its seconds.
        """
        self.path = Path(path).resolve()
        self._clock = clock or SystemClock()
        self._sync = sync
        self._accept_loss = accept_loss
        self._logger = logger or logging.getLogger("stiqueue")
        self._observe = observe
        self._journal: Journal | None = None

    @property
    def name(self) -> str:
        return str(self.path)

    @property
    def durability(self) -> Durability:
        return Durability.DISK if self._sync else Durability.MEMORY

    @property
    def description(self) -> str:
        return f"in {self.path}" + ("" if self._sync else " (not synced: a power cut loses the latest)")

    @property
    def is_ours(self) -> bool:
        return self._journal is None or self._journal.is_ours

    @property
    def journal(self) -> Journal:
        """The open journal."""
        assert self._journal is not None, "the log is not open"
        return self._journal

    def open(self, outcome: Outcome, failed: Failed) -> Kept:
        journal = Journal(self.path, self._clock, self._logger, self._sync, self._accept_loss)
        journal.outcome, journal.on_failure, journal.observe = outcome, failed, self._observe
        try:
            kept = journal.recover()
        except BaseException:
            journal.close()
            raise
        self._journal = journal
        journal.start()
        return kept

    def check(self, lane: LaneName) -> None:
        assert self._journal is not None, "the log is not open"
        self._journal.check(lane)

    def append(self, change: Change) -> None:
        assert self._journal is not None, "the log is not open"
        self._journal.write(change)

    def read(self, lane: LaneName, after_id: int, limit: int, done: Callable[[list[Run]], None]) -> None:
        def read(rows: list[Row]) -> None:
            done(Reader(lane, self._clock.monotonic(), int(self._clock.wall() * 1000)).runs(rows))

        self.journal.load(lane, after_id, limit, read)

    def find(self, queue: str, ids: Sequence[int], done: Found) -> None:
        def found(looked_for: Sequence[int], rows: list[tuple[LaneName, Row]]) -> None:
            times = self._clock.monotonic(), int(self._clock.wall() * 1000)
            done(looked_for, [Reader(lane, *times).entry(row) for lane, row in rows])

        self.journal.find(queue, ids, found)

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()
