"""Checks a data file without a server, and salvages the messages of a damaged one.

Neither changes the file. `salvage` reads each page by itself, copies every row with a valid checksum, wherever it is,
and writes a new file.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stiqueue.engines.sqlite.claim import Mark, sync_directory, unclaimed
from stiqueue.engines.sqlite.damage.checking import Progress, check_rows, check_unopened, check_view, described
from stiqueue.engines.sqlite.damage.loss import Loss
from stiqueue.engines.sqlite.damage.remains import Remains
from stiqueue.engines.sqlite.rows import FLOOR_LANE, ID_BITS, MAX_ID, LaneRow, Row
from stiqueue.engines.sqlite.schema import create
from stiqueue.engines.sqlite.store import Store
from stiqueue.engines.sqlite.view import View
from stiqueue.errors import StoreDamaged, StoreError

ID_GAP = 1_000_000
"""The gap in ids after a loss, so that no id of a lost message is reused."""
_BATCH_ROWS, _BATCH_BYTES = 1_000, 4 << 20


@dataclass(slots=True)
class Report:
    """The result of `check`."""

    path: Path
    problems: list[str] = field(default_factory=list)
    """In the order in which they were found; empty: the file is good."""
    queues: dict[str, int] = field(default_factory=dict)
    """The messages of each queue, by the file's counters."""
    transactions: int = 0
    """The number of the last transaction."""
    readable: int = 0
    """The number of readable messages."""
    loss: Loss = field(default_factory=Loss)
    """The unreadable messages."""

    @property
    def lines(self) -> list[str]:
        """The report in words."""
        counted = f"{self.path}: {sum(self.queues.values())} messages in {len(self.queues)} queues"
        if not self.problems:
            doubt = "" if self.loss.is_exact else f"; {self.loss.words}"
            return [f"{counted}, {self.transactions} transactions: good{doubt}"]
        return [*self.problems, f"{self.path}: {self.readable:,} messages can be read, {self.loss.words}"]


@dataclass(slots=True)
class Salvaged:
    """The result of `salvage`."""

    saved: int = 0
    """The messages in the new file."""
    loss: Loss = field(default_factory=Loss)
    """The unreadable messages."""


def check(path: str | os.PathLike[str]) -> Report:
    """Check the data file at `path` as a server does at startup, and all of its rows. Changes nothing.

    Raises:
        StoreInUse: a server holds the file.
        StoreError: the file is missing, unreadable or no data file of this version.
    """
    path = Path(path).resolve()
    with unclaimed(path):
        report = Report(path)
        try:
            _check_as_server(path, report)
        except StoreDamaged as error:
            report.problems.append(described(error, path))
            remains = Remains(path)
            saved = Counter(key >> ID_BITS for key in {row.key for row in remains.messages()})
            report.readable, report.loss = saved.total(), remains.loss(saved, Mark.of(path))
        else:
            report.readable = sum(report.queues.values())
            report.loss = Loss(0, 0 if Mark.of(path) else None)
        return report


def _check_as_server(path: Path, report: Report) -> None:
    mark = Mark.of(path)
    if not path.exists() and not mark and not Path(f"{path}-wal").exists():
        raise StoreError(f"{path}: No such file or directory")
    pages = check_unopened(path, mark, os.R_OK)
    with contextlib.closing(View(path)) as view:
        lanes = view.lanes()
        for lane in lanes:
            if lane.messages:
                report.queues[lane.queue] = report.queues.get(lane.queue, 0) + lane.messages
        report.transactions = max((lane.seq for lane in lanes), default=0)
        check_view(view, pages, mark)
        check_rows(view)


def salvage(path: str | os.PathLike[str], out: str | os.PathLike[str]) -> Salvaged:
    """Copy every readable message of the data file at `path` to a new file, `out`. Does not change `path`.

    The messages keep their queues, ids, priorities, delays and attempts. If an ack was lost with its page, the new file
    contains its message.

    Raises:
        StoreInUse: a server holds the file.
        StoreError: `out` exists, or `path` is missing or a file of another program.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    if out == rescued_name(path):
        raise StoreError(f"{out}: is what the next start would take for {path}; choose another name")
    with unclaimed(path):
        if not path.exists() and not Path(f"{path}-wal").exists():
            raise StoreError(f"{path}: No such file or directory")
        return rescue(path, out, Mark.of(path))


def rescued_name(path: Path) -> Path:
    """Return the file to which a start with accept_loss salvages messages, before it replaces `path`."""
    return Path(f"{path}.accepted-loss")


def rescue(path: Path, out: Path, mark: int = 0, logger: logging.Logger | None = None) -> Salvaged:
    """Do the work of `salvage` for a file that this process holds; `mark` is the last known transaction."""
    if path.exists() and not path.is_file():
        raise StoreError(f"{path}: is not a file")
    for end in ("", "-wal"):
        if Path(f"{out}{end}").exists():
            raise StoreError(f"{out}{end}: exists already")
    unfinished = Path(f"{out}.unfinished")
    _remove(unfinished)
    create(unfinished)
    try:
        salvaged = _copy(path, unfinished, mark, Progress(logger, f"{path}: %d messages were saved so far"))
        with unfinished.open("rb") as file:
            os.fsync(file.fileno())
        unfinished.rename(out)
        sync_directory(out)
    except (OSError, sqlite3.Error) as error:
        raise StoreError(f"{out}: {error}") from error
    finally:
        _remove(unfinished)
    return salvaged


def _remove(path: Path) -> None:
    for end in ("", "-wal"):
        Path(f"{path}{end}").unlink(missing_ok=True)


def _copy(path: Path, unfinished: Path, mark: int, progress: Progress) -> Salvaged:
    """Copy the readable messages of `path` to the empty file `unfinished`."""
    store = Store(unfinished, sync=False)
    try:
        remains = Remains(path)
        for rows in _batches(remains.messages()):
            with store.transaction():
                store.keep(rows)
            store.checkpoint()
            progress.add(len(rows))
        saved = store.totals()
        if not (saved or mark or remains.is_ours):
            raise StoreError(f"{path}: nothing in it is StiQueue's")
        with store.transaction():
            store.save_lanes(_new_lanes(remains, saved, mark))
            store.remember(remains.requests.values())
            store.save_settings(remains.settings.values())
    finally:
        store.close()
    counted = {no: messages for no, (messages, _, _) in saved.items()}
    return Salvaged(sum(counted.values()), remains.loss(counted, mark))


def _new_lanes(remains: Remains, saved: Mapping[int, tuple[int, int, int]], mark: int) -> list[LaneRow]:
    """Return the counters of the new file; its ids and transactions continue far above those of the old one."""
    known = remains.lanes
    last_id = max([lane.last_id for lane in known.values()] + [last for _, _, last in saved.values()], default=0)
    seq = max([lane.seq for lane in known.values()] + [mark]) + 1 if known else mark + 1
    floor = LaneRow(FLOOR_LANE, "", 0, last_id=min(last_id + ID_GAP, MAX_ID), seq=seq)
    lanes = [floor]
    for no, (messages, size, _) in saved.items():
        place, priority = remains.name_of(no)
        lanes.append(LaneRow(no, place, priority, messages, size, floor.last_id, seq))
    return lanes


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Group rows into lists that one transaction can write."""
    batch: list[Row] = []
    size = 0
    for row in rows:
        if batch and (len(batch) == _BATCH_ROWS or size + len(row.body) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += len(row.body)
    if batch:
        yield batch
