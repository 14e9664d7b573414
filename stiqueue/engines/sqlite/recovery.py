"""Opens a data file that may be damaged: refuses a damaged one in one line, or salvages it and keeps it aside."""

from __future__ import annotations

import logging
from pathlib import Path

from stiqueue.engines.sqlite.claim import sync_directory
from stiqueue.engines.sqlite.damage.checking import check_file, described, is_missing
from stiqueue.engines.sqlite.damage.salvage import rescue, rescued_name
from stiqueue.engines.sqlite.schema import create
from stiqueue.engines.sqlite.store import Store
from stiqueue.errors import StoreDamaged


def open_checked(path: Path, sync: bool, mark: int, accept_loss: bool, logger: logging.Logger) -> Store:
    """Open the data file at `path`, which this process has claimed. A refused file is not changed.

    Args:
        path: the file; created if it does not exist.
        sync: see `Store`.
        mark: the number of the last transaction known to be confirmed; 0: unknown.
        accept_loss: keep a damaged file aside, and go on with its readable messages.
        logger: where a loss is logged.

    Raises:
        StoreDamaged: the file is damaged; the text says where, and what to do.
        StoreError: the file cannot be used for another reason.
    """
    rescued = rescued_name(path)
    if rescued.exists():  # a start with accept_loss ended between saving what there was and putting it in place
        _replace(path, rescued)
    try:
        check_file(path, mark, accept_loss, sync, logger)
    except StoreDamaged as error:
        if not accept_loss:
            raise StoreDamaged(f"{described(error, path)}. Nothing was changed. {advice(path)}") from error
        logger.error("%s", described(error, path))
        result = rescue(path, rescued, mark, logger)
        aside = _replace(path, rescued)
        told = f"{result.saved:,} messages were saved, {result.loss.words}"
        logger.warning("%s: %s; the damaged file is %s", path, told, aside)
        check_file(path, mark, True)
    if is_missing(path):
        create(path)
    return Store(path, sync)


def advice(path: Path) -> str:
    """Say what the owner of a damaged file can do."""
    return (
        f"See `python -m stiqueue check {path}`, get out what can be read with "
        f"`python -m stiqueue salvage {path} OUT`, or start with --accept-loss to go on with that"
    )


def _replace(path: Path, rescued: Path) -> Path:
    """Put `rescued` in place of a damaged file, and return the name of the latter. Safe to interrupt and repeat."""
    aside = Path(f"{path}.damaged-{int(rescued.stat().st_mtime)}")
    for end in ("", "-wal", "-shm"):
        old = Path(f"{path}{end}")
        if old.exists():
            old.rename(f"{aside}{end}")
    sync_directory(path)  # or a power cut could leave the new file with the log of the old one
    rescued.rename(path)
    sync_directory(path)
    return aside
