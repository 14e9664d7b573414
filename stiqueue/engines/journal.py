"""The journal of a durable engine: changes go in, and are called done once they are on the disk.

One thread owns the data file. It takes all changes that have gathered and writes them in one synced transaction (group
commit), so the disk is never waited for while a lock is held, and many small requests share one sync. Knows no queue
rules.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stiqueue.clock import Clock
from stiqueue.dedup import REMEMBERED_SECONDS
from stiqueue.engines.claim import Claim, Mark
from stiqueue.engines.intake import Intake
from stiqueue.engines.mailbox import Mailbox
from stiqueue.engines.recovery import advice, open_checked
from stiqueue.engines.room import Room, is_full
from stiqueue.engines.rows import ID_BITS, MOST_LANES, LaneRow, RequestRow, Row
from stiqueue.engines.writer import Change, Update, Writer
from stiqueue.errors import DiskFull, StiQueueError, StoreDamaged, StoreError, Unavailable

TIDY_SECONDS = 0.1
"""How long there must be nothing to do before the file is tidied up."""
RETRY_SECONDS = 0.5
"""How often a full disk is tried again."""
JOIN_SECONDS = 60.0
"""How long `close` waits for what is under way to be written."""


@dataclass(slots=True)
class Recovered:
    """What a data file has when it is opened."""

    lanes: list[LaneRow]
    floor: int
    """The highest id of all lanes that are no longer there."""
    delayed: list[tuple[LaneRow, Row]]
    requests: list[RequestRow]


class Journal:
    """Writes changes to one data file, on a thread of its own. `write` and `load` are thread-safe."""

    def __init__(
        self, path: Path, clock: Clock, logger: logging.Logger, sync: bool = True, accept_loss: bool = False
    ) -> None:
        """Claim, check and open `path`.

        Raises:
            StoreInUse: another process has it.
            StoreDamaged: it is damaged, and `accept_loss` is not set.
            StoreError: it cannot be used for another reason.
        """
        self.path = path = Path(path).resolve()
        self._clock = clock
        self._logger = logger
        self._claim = Claim(path)
        try:
            self._store = open_checked(path, sync, Mark.of(path), accept_loss, logger)
            try:
                self._mark = Mark(path)
            except BaseException:
                self._store.close()
                raise
        except BaseException:
            self._claim.release()
            raise
        self._claim.keep(self._store.connection)
        # Owned by the journal's thread once that runs, as is the store:
        self._writer = Writer(self._store, clock)
        self._room = Room(self._store, logger)
        self._intake = Intake()
        self._mailbox = Mailbox()
        self.failure: StiQueueError | None = None
        """Why nothing is written any more, if so."""
        self.on_failure: Callable[[StiQueueError], None] = lambda error: None
        """Called on the journal's thread when nothing can be written any more."""
        self.lazy_source: Callable[[], list[Update]] = list
        """Asked for updates that nobody waits for (attempts), just before a transaction."""
        self.committed: Callable[[list[Change]], None] = _call_done
        """Called with all changes of a transaction that is safe."""
        self.observe: Callable[[int, float], None] | None = None
        """Told of each transaction that was written: how many changes, how many seconds."""
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="stiqueue-journal", daemon=True)

    @property
    def full(self) -> bool:
        """Whether the disk is full: new messages are refused, everything else goes on."""
        return self._room.full

    @property
    def is_ours(self) -> bool:
        """Whether this process has opened it; False in its forks."""
        return self._claim.held

    def has_lane_for(self, queue: str, priority: int) -> bool:
        """Whether a message of that queue and priority can be numbered. Thread-safe."""
        lanes = self._writer.lanes
        return len(lanes) < MOST_LANES or (queue, priority) in lanes

    def recover(self) -> Recovered:
        """Return what the file has; to be called once, before `start`."""
        by_no = {lane.no: lane for lane in self._writer.lanes.values()}
        delayed = [(by_no[row.key >> ID_BITS], row) for row in self._store.delayed()]
        oldest = int(self._clock.wall() * 1000) - int(REMEMBERED_SECONDS * 1000)
        return Recovered(
            list(self._writer.lanes.values()),
            self._writer.floor,
            delayed,
            [each for each in self._store.requests() if each.time_ms >= oldest],
        )

    def start(self) -> None:
        """Begin to write."""
        self._mark.write(self._writer.seq)
        self._room.take()
        self._thread.start()

    def write(self, change: Change, lazy: bool = False) -> None:
        """Have `change` written with the next transaction; a `lazy` one may wait a moment for others."""
        if not self.is_ours:
            raise Unavailable(f"{self.path} belongs to the process that opened it, not to its forks", "FORKED")
        self._mailbox.put(change, lazy)

    def expect_lazy(self) -> None:
        """Ask `lazy_source` within a moment."""
        self._mailbox.expect_lazy()

    def load(self, queue: str, priority: int, after_id: int, limit: int, done: Callable[[list[Row]], None]) -> None:
        """Read up to `limit` messages with greater ids and no due time; `done` gets them on the journal's thread."""

        def read() -> None:
            lane = self._writer.lanes.get((queue, priority))
            done([] if lane is None else self._store.page(lane.no, after_id, limit))

        self._mailbox.put_load(read)

    def close(self) -> None:
        """Write what is left, and close the file. In a fork of the process that opened it: do nothing."""
        if not self.is_ours:
            return
        self._mailbox.stop()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            self._logger.error("%s: the disk does not answer; what was not confirmed may be lost", self.path)
            return
        if self.failure is None or isinstance(self.failure, StoreDamaged):  # that was read; what was written is safe
            self._mark.write(self._writer.seq)
            self._store.close()
        else:
            self._store.abandon()
        self._room.leave()
        self._mark.close()
        self._claim.release()

    # -- the journal's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # whatever it is: nothing may be confirmed any more
            self._fail(error)
            self._refuse_all()

    def _step(self) -> bool:
        """Do what there is to do, wait when there is nothing; return whether to go on."""
        post = self._mailbox.take(bool(self._intake) and not self._room.full, self._patience)
        for load in post.loads:
            load()
        self._intake.add(post.changes, self.lazy_source() if post.lazy else ())
        if self._room.full:
            self._make_do()
        elif self._intake:
            self._commit()
        elif post.idle:
            self._tidy()
        return bool(self._intake) or not self._mailbox.is_over

    def _patience(self) -> float | None:
        """Return how long to wait for work before looking what else there is to do."""
        if self._room.shrinking:
            return 0.0
        if self._room.full:
            return RETRY_SECONDS
        if self._room.untidy:
            return TIDY_SECONDS
        return REMEMBERED_SECONDS if self._writer.remembers else None

    def _commit(self) -> None:
        """Write one transaction; when the disk is full, make do."""
        if not self._write(*self._intake.take()):
            self._make_do()

    def _write(self, changes: list[Change], updates: list[Update]) -> bool:
        """Write changes and call them done; return False when the disk is full."""
        began = time.perf_counter()
        try:
            pages = self._writer.write(changes, updates)
        except Exception as error:
            self._intake.put_back(changes, updates)
            if is_full(error):
                return False
            raise
        self._mark.write(self._writer.seq)
        self.commits += 1
        if self.observe is not None:
            self.observe(len(changes), time.perf_counter() - began)
        self.committed(changes)
        self._if_there_is_room(lambda: self._room.used(pages))
        self._if_there_is_room(self._writer.forget_lanes)
        return True

    def _if_there_is_room(self, action: Callable[[], None]) -> bool:
        """Do what can be left when the disk is full; return whether it was done."""
        try:
            action()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            self._room.full = True
            return False
        return True

    def _tidy(self) -> None:
        """Do what can wait until there is nothing else to do."""
        self._if_there_is_room(self._room.tidy if self._room.untidy else self._writer.forget_requests)

    def _make_do(self) -> None:
        """Refuse new messages, and write the rest in small parts into the space that was held back for it."""
        self._intake.refuse_new(DiskFull(f"no room on the disk of {self.path}"))
        self._intake.divide()
        while self._if_there_is_room(self._room.make_do) and self._intake:
            if not self._write(*self._intake.take_part()):
                return
        self._if_there_is_room(self._room.tidy)

    def _fail(self, error: Exception) -> None:
        """Write nothing any more: after a failed sync the kernel may have dropped what it could not write."""
        if isinstance(error, StoreDamaged):
            last = f" (last good id: {error.last_good})" if error.last_good else ""
            self.failure = StoreDamaged(f"{error}{last}. {advice(self.path)}")
        elif isinstance(error, (sqlite3.Error, OSError, StoreError)):
            self.failure = StoreError(f"{self.path}: cannot be written: {error}; stopping, for nothing is safe now")
        else:
            self.failure = StoreError(f"{self.path}: a defect, {error!r}; stopping, for nothing is safe now")
            self._logger.critical("%s", self.failure, exc_info=error)
        self.on_failure(self.failure)

    def _refuse_all(self) -> None:
        """Answer all changes that their outcome is unknown, until the journal is closed."""
        unknown = Unavailable(f"{self.path} cannot be written any more", "STORE_FAILED")
        stopping = False
        while not stopping:
            self._intake.refuse_all(unknown)
            changes, stopping = self._mailbox.take_changes()
            self._intake.add(changes, ())
        self._intake.refuse_all(unknown)


def _call_done(changes: list[Change]) -> None:
    for change in changes:
        if change.done:
            change.done(None)
