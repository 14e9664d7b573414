"""The thread that writes a data file: takes changes, and reports them once they are on the disk.

The thread owns the data file. It writes all waiting changes in one synced transaction (group commit): many small
requests share one sync, and nobody waits for the disk while holding a lock. Knows no queue rules.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from stiqueue.engines.clock import Clock
from stiqueue.engines.local.change import Change, LaneName
from stiqueue.engines.local.log import Kept, Outcome
from stiqueue.engines.sqlite.claim import Claim, Mark
from stiqueue.engines.sqlite.intake import MOST_BYTES, Intake
from stiqueue.engines.sqlite.mailbox import Mailbox
from stiqueue.engines.sqlite.recovery import advice, open_checked
from stiqueue.engines.sqlite.restoring import kept
from stiqueue.engines.sqlite.rows import MOST_LANES, Row
from stiqueue.engines.sqlite.space import Space, is_full
from stiqueue.engines.sqlite.watch import REMOVED, Watch, keep_removed
from stiqueue.engines.sqlite.writer import Writer
from stiqueue.errors import DiskFull, LimitReached, StiQueueError, StoreDamaged, StoreError, Unavailable
from stiqueue.rules.recent import REMEMBERED_SECONDS

TIDY_SECONDS = 0.1
"""Idle seconds before the file is tidied."""
RETRY_SECONDS = 0.5
"""Seconds between two attempts on a full disk."""
WATCH_SECONDS = 1.0
"""How often an idle journal checks that its files are still there, in seconds."""
JOIN_SECONDS = 60.0
"""How long `close` waits for the last changes to be written."""


class Journal:
    """Writes changes to one data file, on its own thread. `check`, `write` and `load` are thread-safe."""

    def __init__(
        self, path: Path, clock: Clock, logger: logging.Logger, sync: bool = True, accept_loss: bool = False
    ) -> None:
        """Claim, check and open `path`.

        Raises:
            StoreInUse: another process has it.
            StoreDamaged: it is damaged, and `accept_loss` is not set.
            StoreError: it is unusable for another reason.
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
        self._space = Space(self._store, logger)
        self._watch = Watch(path)
        self._forget_at = time.monotonic() + REMEMBERED_SECONDS
        """When an idle journal deletes old request ids."""
        self._intake = Intake()
        self._mailbox = Mailbox()
        self.failure: StiQueueError | None = None
        """Why the journal stopped writing; None: it did not."""
        self.on_failure: Callable[[StiQueueError], None] = lambda error: None
        """Called on the journal's thread when it stops writing because of an error."""
        self.outcome: Outcome = _tell
        """Called on the journal's thread with changes that are safe, or that were refused with an error."""
        self.observe: Callable[[int, float], None] | None = None
        """Called after each transaction with its number of changes and its seconds."""
        self.commits = 0
        self._thread = threading.Thread(target=self._run, name="stiqueue-journal", daemon=True)

    @property
    def is_ours(self) -> bool:
        """Whether this process opened the file; False in its forks, and once it is closed."""
        return self._claim.held

    def check(self, lane: LaneName) -> None:
        """Check that a new message of a lane can be written. Thread-safe.

        Raises:
            DiskFull: the disk is full; everything else goes on.
            LimitReached: there are no numbers left for lanes.
            Unavailable: this process is a fork of the one that opened the file.
        """
        if not self._claim.held:
            raise self._forked()
        if self._space.full:
            raise DiskFull(f"no room on the disk of {self.path}")
        lanes = self._writer.lanes
        if len(lanes) >= MOST_LANES and lane not in lanes:
            raise LimitReached("there are too many queues with too many priorities or keys", "TOO_MANY_QUEUES")

    def _forked(self) -> Unavailable:
        return Unavailable(f"{self.path} belongs to the process that opened it, not to its forks", "FORKED")

    def recover(self) -> Kept:
        """Return the contents of the file. Call it once, before `start`."""
        return kept(self._writer, self._store, self._clock)

    def start(self) -> None:
        """Start the thread."""
        self._mark.write(self._writer.seq)
        self._space.take()
        self._thread.start()

    def write(self, change: Change) -> None:
        """Write `change` in the next transaction; a lazy one may wait for others."""
        if not self._claim.held:
            raise self._forked()
        self._mailbox.put(change)

    def load(self, name: LaneName, after_id: int, limit: int, done: Callable[[list[Row]], None]) -> None:
        """Read up to `limit` messages with greater ids and no due time; `done` gets them on the journal's thread."""

        def read() -> None:
            lane = self._writer.lanes.get(name)
            done([] if lane is None else self._store.page(lane.no, after_id, limit))

        self._mailbox.put_load(read)

    def find(
        self, queue: str, ids: Sequence[int], done: Callable[[Sequence[int], list[tuple[LaneName, Row]]], None]
    ) -> None:
        """Read messages by `ids`, those without a due time, up to about 4 MiB.

        `done` gets the ids that were looked for, and (lane, message) of those there, on the journal's thread.
        """
        self._mailbox.put_load(lambda: done(*self._store.find(queue, ids)))

    def close(self) -> None:
        """Write the remaining changes, and close the file. Does nothing in a fork."""
        if not self.is_ours:
            return
        self._mailbox.stop()
        if self._thread.is_alive():
            self._thread.join(JOIN_SECONDS)
        if self._thread.is_alive():
            self._logger.error("%s: the disk does not answer; what was not confirmed may be lost", self.path)
            return
        self.failure = self.failure or self._watch.gone()
        if self.failure is None or isinstance(self.failure, StoreDamaged):  # that was read; what was written is safe
            self._mark.write(self._writer.seq)
            self._store.close()
        else:
            if self.failure.reason == REMOVED:
                keep_removed(self._store, self._watch, self._logger)
            self._store.abandon()
        self._space.leave()
        self._mark.close()
        self._claim.release()

    # -- the journal's thread -----------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while self._step():
                pass
        except Exception as error:  # whatever it is, nothing may be confirmed after it
            self._fail(error)
            self._refuse_all()

    def _step(self) -> bool:
        """Do the next piece of work, or wait for it; return whether to go on."""
        busy = bool(self._intake) or self._space.log_is_long
        post = self._mailbox.take(busy and not self._space.full, self._patience)
        for load in post.loads:
            load()
        self._intake.add(post.changes)
        self._watch.look_when_due()
        if self._space.full:
            self._make_do()
        elif self._space.log_is_long and not (self._intake and self._intake.next_bytes < self._space.spare_bytes):
            self._if_there_is_room(self._space.shorten)
        elif self._intake:
            self._commit()
        elif post.idle:
            self._tidy()
        return bool(self._intake) or not self._mailbox.is_over

    def _patience(self) -> float:
        """Return how many seconds to wait for work before idle work begins."""
        if self._space.shrinking:
            return 0.0
        if self._space.full:
            return RETRY_SECONDS
        if self._space.untidy:
            return TIDY_SECONDS
        return WATCH_SECONDS

    def _commit(self) -> None:
        """Write one transaction, a small one while the log is long; cope with a full disk."""
        if not self._write(self._intake.take(self._space.spare_bytes if self._space.log_is_long else MOST_BYTES)):
            self._make_do()

    def _write(self, changes: list[Change]) -> bool:
        """Write changes and report them; return False if the disk is full."""
        began = time.perf_counter()
        try:
            pages = self._writer.write(changes)
        except Exception as error:
            self._intake.put_back(changes)
            if is_full(error):
                return False
            raise
        self._mark.write(self._writer.seq)
        self._forget_at = time.monotonic() + REMEMBERED_SECONDS
        self.commits += 1
        if self.observe is not None:
            self.observe(len(changes), time.perf_counter() - began)
        self.outcome(changes, None)
        self._space.used(pages)
        self._if_there_is_room(self._writer.forget_lanes)
        return True

    def _if_there_is_room(self, action: Callable[[], None]) -> bool:
        """Do optional work; return False if the disk is too full for it."""
        try:
            action()
        except sqlite3.Error as error:
            if not is_full(error):
                raise
            self._space.full = True
            return False
        return True

    def _tidy(self) -> None:
        """Do idle work."""
        if self._space.untidy:
            self._if_there_is_room(self._space.tidy)
        elif self._writer.remembers and time.monotonic() >= self._forget_at:
            self._forget_at = time.monotonic() + REMEMBERED_SECONDS
            self._if_there_is_room(self._writer.forget_requests)

    def _make_do(self) -> None:
        """Refuse new messages, and write the other changes in small parts into the space of the reserve."""
        self.outcome(self._intake.take_new(), DiskFull(f"no room on the disk of {self.path}"))
        self._intake.divide()
        while self._if_there_is_room(self._space.make_do) and self._intake:
            if not self._write(self._intake.take_part()):
                return
        self._if_there_is_room(self._space.tidy)

    def _fail(self, error: Exception) -> None:
        """Stop writing: after a failed sync the kernel may have dropped unwritten pages."""
        if isinstance(error, StoreDamaged):
            last = f" (last good id: {error.last_good})" if error.last_good else ""
            self.failure = StoreDamaged(f"{error}{last}. {advice(self.path)}")
        elif isinstance(error, StoreError) and error.reason == REMOVED:
            self.failure = StoreError(f"{error}; stopping, for what is written now would be lost", REMOVED)
        elif isinstance(error, (sqlite3.Error, OSError, StoreError)):
            self.failure = StoreError(f"{self.path}: cannot be written: {error}; stopping, for nothing is safe now")
        else:
            self.failure = StoreError(f"{self.path}: a defect, {error!r}; stopping, for nothing is safe now")
            self._logger.critical("%s", self.failure, exc_info=error)
        self.on_failure(self.failure)

    def _refuse_all(self) -> None:
        """Answer every change that its outcome is unknown, until the journal is closed."""
        unknown = Unavailable(f"{self.path} cannot be written any more", "STORE_FAILED")
        self.outcome(self._intake.take_all(), unknown)
        while not self._mailbox.is_over:
            self.outcome(self._mailbox.take(False, lambda: WATCH_SECONDS).changes, unknown)


def _tell(changes: Sequence[Change], error: StiQueueError | None) -> None:
    for change in changes:
        if change.tell:
            change.tell(error)
