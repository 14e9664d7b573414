"""Files that say who is trusted: read, read again when they change, and seen by nobody else."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from stiqueue.errors import InvalidRequest


class FileWatch:
    """Notices when one of some files was replaced or written. Of threads that ask at once, each may hear of it."""

    def __init__(self, *paths: str) -> None:
        """Take the files as they are now for seen."""
        self._paths = paths
        self._seen = self._look()

    def has_changed(self) -> bool:
        """Whether a file is another than when this was last asked."""
        seen, self._seen = self._seen, self._look()
        return self._seen != seen

    def _look(self) -> list[tuple[int, int, int]] | None:
        """Return what changes when a file does; None while one is missing."""
        try:
            found = [os.stat(path) for path in self._paths]
        except OSError:
            return None
        return [(each.st_mtime_ns, each.st_size, each.st_ino) for each in found]


def warn_of_readers(option: str, path: str, logger: logging.Logger) -> None:
    """Warn when others than the owner of the file of `option` can read it."""
    if os.stat(path).st_mode & (stat.S_IRGRP | stat.S_IROTH):
        logger.warning("%s: other users of this machine can read %s", option, path)


def read_bytes(option: str, path: str | os.PathLike[str]) -> bytes:
    """Return the content of the file of `option`.

    Raises:
        InvalidRequest: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidRequest(f"{option}: {os.fspath(path)}: {error.strerror}", "BAD_OPTION") from error
