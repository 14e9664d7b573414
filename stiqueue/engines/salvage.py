"""Looking into a data file without a server: `check` it, or `salvage` what a damaged one still has.

Neither changes the file. `salvage` does not rely on anything but single pages: it takes every row that proves itself by
its check, wherever it stands, and makes a new file of them.
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

from stiqueue.engines.checking import Progress, check_rows, check_unopened, check_view, described
from stiqueue.engines.claim import Mark, sync_directory, unclaimed
from stiqueue.engines.remains import Remains
from stiqueue.engines.rows import FLOOR_LANE, ID_BITS, MAX_ID, LaneRow, Row
from stiqueue.engines.schema import create
from stiqueue.engines.store import Store
from stiqueue.engines.view import View
from stiqueue.errors import StoreDamaged, StoreError

ID_GAP = 1_000_000
"""Ids that are left out after a loss, so that none of a lost message is given again."""
_BATCH_ROWS, _BATCH_BYTES = 1_000, 4 << 20


@dataclass(slots=True)
class Report:
    """What `check` found."""

    path: Path
    problems: list[str] = field(default_factory=list)
    """In the order in which they were found; empty: the file is good."""
    queues: dict[str, int] = field(default_factory=dict)
    """How many messages each queue has, by the file's own count."""
    transactions: int = 0
    """The number of the last one."""
    readable: int = 0
    """How many messages can be read."""
    lost: int = 0
    """How many messages cannot, as far as is known."""

    @property
    def lines(self) -> list[str]:
        """The report in words."""
        counted = f"{self.path}: {sum(self.queues.values())} messages in {len(self.queues)} queues"
        if not self.problems:
            return [f"{counted}, {self.transactions} transactions: good"]
        end = f"{self.path}: {self.readable} messages can be read, {self.lost} are lost"
        return [*self.problems, end]


@dataclass(slots=True)
class Salvaged:
    """What `salvage` did."""

    saved: int = 0
    """Messages in the new file."""
    lost: int = 0
    """Messages that the damaged file counted, and that could not be read."""


def check(path: str | os.PathLike[str]) -> Report:
    """Check the data file at `path` as a server does at its start, and all of its rows. Changes nothing.

    Raises:
        StoreInUse: a server holds it.
        StoreError: it cannot be read, is not there or not a data file of this version.
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
            report.readable, report.lost = saved.total(), remains.lost(saved)
        else:
            report.readable = sum(report.queues.values())
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
    """Copy every message that can be read in the data file at `path` into a new one, `out`. Changes nothing at `path`.

    The messages keep their queues, ids, priorities, delays and attempts. An ack that was lost with the rest of its page
    is not known: its message is in the new file.

    Raises:
        StoreInUse: a server holds the file.
        StoreError: there is a file at `out`, or none at `path`, or it is one of another program.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    if out == rescued_name(path):
        raise StoreError(f"{out}: is what the next start would take for {path}; choose another name")
    with unclaimed(path):
        if not path.exists() and not Path(f"{path}-wal").exists():
            raise StoreError(f"{path}: No such file or directory")
        return rescue(path, out, Mark.of(path))


def rescued_name(path: Path) -> Path:
    """Return where a start with accept_loss saves what is left; to be put in place of `path` whatever happens."""
    return Path(f"{path}.accepted-loss")


def rescue(path: Path, out: Path, mark: int = 0, logger: logging.Logger | None = None) -> Salvaged:
    """`salvage`, of a file that this process holds; `mark` is the number of the last known transaction."""
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
    """Write what can be read at `path` into the empty file `unfinished`."""
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
    finally:
        store.close()
    counted = {no: messages for no, (messages, _, _) in saved.items()}
    return Salvaged(sum(counted.values()), remains.lost(counted))


def _new_lanes(remains: Remains, saved: Mapping[int, tuple[int, int, int]], mark: int) -> list[LaneRow]:
    """Return the counters of the new file; its ids and transactions go on far behind those of the old one."""
    known = remains.lanes
    last_id = max([lane.last_id for lane in known.values()] + [last for _, _, last in saved.values()], default=0)
    seq = max([lane.seq for lane in known.values()] + [mark]) + 1 if known else mark + 1
    floor = LaneRow(FLOOR_LANE, "", 0, last_id=min(last_id + ID_GAP, MAX_ID), seq=seq)
    lanes = [floor]
    for no, (messages, size, _) in saved.items():
        queue, priority = remains.name_of(no)
        lanes.append(LaneRow(no, queue, priority, messages, size, floor.last_id, seq))
    return lanes


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Iterate over lists of rows that can be written in one step."""
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
