"""Opening a data file that may be damaged: such a one is refused in one line, or put aside for what is left of it."""

from __future__ import annotations

import logging
from pathlib import Path

from stiqueue.engines.checking import check_file, described, is_missing
from stiqueue.engines.claim import sync_directory
from stiqueue.engines.salvage import rescue, rescued_name
from stiqueue.engines.schema import create
from stiqueue.engines.store import Store
from stiqueue.errors import StoreDamaged


def open_checked(path: Path, sync: bool, mark: int, accept_loss: bool, logger: logging.Logger) -> Store:
    """Open the data file at `path`, which this process has claimed. What is refused is not changed.

    Args:
        path: the file, which is made when it does not exist.
        sync: see `Store`.
        mark: the number of the last transaction that was confirmed, as far as is known; 0: unknown.
        accept_loss: keep a damaged file aside, and go on with what can be read of it.
        logger: told of a loss.

    Raises:
        StoreDamaged: the file is damaged: says what, and what to do.
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
        logger.warning(
            "%s: %d messages were saved, %d were lost; the damaged file is %s", path, result.saved, result.lost, aside
        )
        check_file(path, mark, True)
    if is_missing(path):
        create(path)
    return Store(path, sync)


def advice(path: Path) -> str:
    """Return what the owner of a damaged file can do."""
    return (
        f"See `python -m stiqueue check {path}`, get out what can be read with "
        f"`python -m stiqueue salvage {path} OUT`, or start with --accept-loss to go on with that"
    )


def _replace(path: Path, rescued: Path) -> Path:
    """Put `rescued` in place of a damaged file, which is kept; return its name. May be cut short and repeated."""
    aside = Path(f"{path}.damaged-{int(rescued.stat().st_mtime)}")
    for end in ("", "-wal", "-shm"):
        old = Path(f"{path}{end}")
        if old.exists():
            old.rename(f"{aside}{end}")
    sync_directory(path)  # or a power cut could leave the new file with the log of the old one
    rescued.rename(path)
    sync_directory(path)
    return aside
