"""A data file opened for reading, without changing a byte of it."""

from __future__ import annotations

import os
from pathlib import Path

from stiqueue.engines.sqlite.tables import Tables


class View(Tables):
    """One data file, open for reading. Not thread-safe."""

    def __init__(self, path: Path) -> None:
        """Open `path` and its log, without changing either; nobody else may have it open.

        Raises:
            StoreError: the file cannot be opened.
            StoreDamaged: SQLite finds damage.
        """
        # To read a log, SQLite creates an index file next to it. Without a log the file is complete and immutable.
        logged = os.path.exists(f"{path}-wal") and os.path.getsize(f"{path}-wal") > 0
        self._index = Path(f"{path}-shm") if logged else None
        self._kept_index = self._index.read_bytes() if self._index and self._index.exists() else None
        super().__init__(path, "ro" if logged else "ro&immutable=1")

    def close(self) -> None:
        """Close the file, and leave the index as it was."""
        super().close()
        if self._index is not None:
            if self._kept_index is None:
                self._index.unlink(missing_ok=True)
            else:
                self._index.write_bytes(self._kept_index)
