"""Checks a data file before anything is delivered from it, without changing a byte of it.

SQLite detects almost no damage by itself. So before SQLite opens the file, these checks read the header and scan the
write-ahead log. Afterwards they check the rows: all of them in a file of up to `WHOLE_CHECK_BYTES`, in a larger file
each when it is read. Finally they compare the number of the last transaction with the mark next to the file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from pathlib import Path

from stiqueue.engines.sqlite.claim import Mark
from stiqueue.engines.sqlite.damage import wal
from stiqueue.engines.sqlite.damage.loss import Loss
from stiqueue.engines.sqlite.damage.remains import Remains
from stiqueue.engines.sqlite.rows import ID_BITS
from stiqueue.engines.sqlite.schema import check_first_page
from stiqueue.engines.sqlite.tables import NO_MESSAGE
from stiqueue.engines.sqlite.view import View, one_line
from stiqueue.errors import StoreDamaged, StoreError

WHOLE_CHECK_BYTES = 64 << 20
"""Up to this size every row is checked at startup, which takes about a second."""

_PAGE_ROWS = 1_000
PROGRESS_SECONDS = 5.0
"""The time between two progress lines of a long start."""


class Progress:
    """Logs the progress of long work every few seconds."""

    def __init__(self, logger: logging.Logger | None, text: str) -> None:
        """Log `text`, formatted with the number done."""
        self._logger = logger
        self._text = text
        self._number = 0
        self._said = time.monotonic()

    def add(self, number: int) -> None:
        """Count `number` more as done."""
        self._number += number
        if self._logger is not None and time.monotonic() - self._said >= PROGRESS_SECONDS:
            self._said = time.monotonic()
            self._logger.info(self._text, self._number)


def check_file(path: Path, mark: int, whole: bool, synced: bool = True, logger: logging.Logger | None = None) -> None:
    """Check the data file at `path`, if it exists; a large file only in part. Changes nothing.

    Args:
        path: the file.
        mark: the number of its last known transaction; 0: unknown.
        whole: check every row, however large the file is.
        synced: whether all of its transactions were synced; otherwise the last ones may be missing.
        logger: logs the progress, and missing transactions.

    Raises:
        StoreDamaged: the file is damaged.
        StoreError: the file cannot be used for another reason.
    """
    pages = check_unopened(path, mark)
    if is_missing(path):
        return
    with contextlib.closing(View(path)) as view:
        check_view(view, pages, mark if synced else 0)
        seq = max((lane.seq for lane in view.lanes()), default=0)
        if logger is not None and seq < mark:
            logger.warning("%s: was not synced, %s", path, Loss(0, mark - seq).words)
        if whole or path.stat().st_size <= WHOLE_CHECK_BYTES:
            check_rows(view, logger)


def is_missing(path: Path) -> bool:
    """Return whether the file at `path` is missing or empty."""
    return not path.exists() or path.stat().st_size == 0


def check_unopened(path: Path, mark: int = 0, access: int = os.R_OK | os.W_OK) -> frozenset[int]:
    """Check the header and the log of the file at `path` before SQLite opens it.

    Args:
        path: the file, which may not exist yet.
        mark: the number of its last known transaction.
        access: the permissions that this process needs on the file.

    Returns:
        The pages in the write-ahead log.

    Raises:
        StoreDamaged: the file is damaged.
        StoreError: the file cannot be used for another reason.
    """
    log = Path(f"{path}-wal")
    try:
        status = path.stat()
    except FileNotFoundError:
        if log.exists() and log.stat().st_size > 0:
            raise StoreDamaged(f"{path}: is missing, but its write-ahead log is there") from None
        if mark:
            raise StoreDamaged(f"{path}: is missing, but {path}-mark says that it had {mark} transactions") from None
        return frozenset()
    except OSError as error:
        raise StoreError(f"{path}: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise StoreError(f"{path}: is not a file")
    for each in (path, log, Path(f"{path}-mark")):
        if each.exists() and not os.access(each, access):
            raise StoreError(f"{each}: no permission to read{' and write' if access & os.W_OK else ''}")
    if status.st_size == 0:
        if log.exists() and log.stat().st_size > 0:
            raise StoreDamaged(f"{path}: was cut to nothing, but its write-ahead log is there")
        if mark:
            raise StoreDamaged(f"{path}: was cut to nothing; {path}-mark says that it had {mark} transactions")
        return frozenset()
    check_first_page(path)
    found = wal.scan(log)
    if found.damaged and not (found.ignored and wal.is_in_file(path, log)):
        raise StoreDamaged(
            f"{log}: is damaged behind transaction {found.commits}, {found.lost_commits} confirmed ones follow it"
        )
    return found.pages


def check_view(view: View, pages: frozenset[int], mark: int) -> None:
    """Check that a file has its counters, all of its pages, and the transactions up to `mark`.

    `pages` are the pages in its log.

    Raises:
        StoreDamaged: one of these is missing.
    """
    page = view.missing_page(pages)
    if page:
        raise StoreDamaged(f"{view.path}: was cut before page {page}", last_good=view.last_in_order())
    check_mark(view.path, max((lane.seq for lane in view.lanes()), default=0), mark)
    view.requests()
    view.settings()
    view.delayed()


def check_mark(path: Path, seq: int, mark: int) -> None:
    """Check that `seq`, the last transaction of a file, is not older than the last confirmed one.

    Raises:
        StoreDamaged: it is older.
    """
    if seq < mark:
        raise StoreDamaged(f"{path}: ends with transaction {seq}, but {mark} were confirmed: it is older, or was cut")


def check_rows(view: View, logger: logging.Logger | None = None) -> None:
    """Check the structure of the file, every row, and that each lane has as many messages as it counts.

    Raises:
        StoreDamaged: at the first damage; it names the last good message.
    """
    try:
        view.integrity()
    except StoreDamaged as error:
        raise StoreDamaged(str(error), last_good=view.last_in_order()) from error
    progress = Progress(logger, f"{view.path}: %d messages were checked so far")
    lanes = {lane.no: lane for lane in view.lanes()}
    counted = dict.fromkeys(lanes, 0)
    last = dict.fromkeys(lanes, NO_MESSAGE)
    key = -1
    while rows := view.every(key, _PAGE_ROWS):
        for row in rows:
            number = row.key >> ID_BITS
            if number not in lanes:
                raise StoreDamaged(f"{view.path}: message {row.id} belongs to no queue", last_good=view.name(key))
            counted[number] += 1
            key = row.key
            last[number] = f"{row.id} of {lanes[number].queue}"
        progress.add(len(rows))
    for number, lane in lanes.items():
        if counted[number] != lane.messages:
            raise StoreDamaged(
                f"{view.path}: queue {lane.queue} has {counted[number]} messages of priority {lane.priority}, "
                f"but {lane.messages} were confirmed",
                last_good=last[number],
            )


def described(error: StoreDamaged, path: Path) -> str:
    """Describe the damage in one line, with the last good message."""
    return f"{one_line(str(error))} (last good id: {error.last_good or _last_good(path)})"


def _last_good(path: Path) -> str:
    """Return the last good message by the last good transaction, for damage outside of the rows."""
    with contextlib.suppress(StoreError):
        check_first_page(path)
        with contextlib.closing(View(path)) as view:
            return view.last_given()
    try:
        sizes = [Path(f"{path}{end}").stat().st_size for end in ("", "-wal") if Path(f"{path}{end}").exists()]
        return Remains(path).last_good(Mark.of(path)) if sum(sizes) <= WHOLE_CHECK_BYTES else "unknown"
    except OSError:
        return "unknown"
