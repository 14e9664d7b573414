"""The files next to the data file: the lock, and the mark of the last transaction."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import struct
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

from stiqueue.errors import StoreError, StoreInUse

_MARK = struct.Struct("<QI")

# This call keeps the interpreter lock for its one microsecond. os.pwrite would release it, and a busy event loop can
# then hold it for milliseconds.
_pwrite = ctypes.PyDLL(None).pwrite
_pwrite.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_long)
_pwrite.restype = ctypes.c_ssize_t


class Claim:
    """Holds the data file for this process by an flock on ``<file>-lock``, which also contains the holder's pid.

    The lock is on a separate file because closing any descriptor of the data file would drop SQLite's locks on it.
    """

    def __init__(self, path: Path) -> None:
        """Claim the data file at `path`.

        Raises:
            StoreInUse: another process holds it.
        """
        try:
            self._file = os.open(f"{path}-lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}-lock: {error.strerror}") from error
        try:
            _lock(self._file, fcntl.LOCK_EX, path)
        except BaseException:
            os.close(self._file)
            raise
        with contextlib.suppress(OSError):  # a full disk
            os.pwrite(self._file, b"%-20d\n" % os.getpid(), 0)
        self.held = True
        """Whether this process holds the file; a fork of it does not."""
        self._kept: list[object] = []
        _claims.add(self)

    def keep(self, connection: object) -> None:
        """Keep a fork of this process from closing an SQLite connection.

        SQLite would believe that the fork has the locks, and would move the log into the file and delete it while this
        process uses it.
        """
        self._kept.append(connection)

    def release(self) -> None:
        """Release the file. The lock file stays: deleting it would open a race."""
        if self.held:
            self.held = False
            os.close(self._file)

    def leave_to_parent(self) -> None:
        """Drop the claim in a fork of its process: the flock lasts as long as any process has the lock file open."""
        self.release()
        for connection in self._kept:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _after_fork() -> None:
    for claim in list(_claims):
        claim.leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def unclaimed(path: Path) -> Iterator[None]:
    """Keep servers away from the data file at `path` inside the `with` block.

    Raises:
        StoreInUse: a server holds it.
    """
    try:
        file = os.open(f"{path}-lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:  # no server ever held it
        yield
        return
    except OSError as error:
        raise StoreError(f"{path}-lock: {error.strerror}") from error
    try:
        _lock(file, fcntl.LOCK_SH, path)
        yield
    finally:
        os.close(file)


def _lock(file: int, kind: int, path: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(file, 32, 0).decode(errors="replace").strip()
        raise StoreInUse(f"{path}: in use by process {holder or 'unknown'}") from None


def sync_directory(path: Path) -> None:
    """Make the name of a new file survive a power cut."""
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


class Mark:
    """The number of the last confirmed transaction, in ``<file>-mark``.

    It is written after each transaction, before the transaction is confirmed, and without a sync. After a kill it is
    exact; after a power cut it may lag; it never leads. A data file behind its mark has lost transactions: it was
    truncated, or it is an older copy.
    """

    def __init__(self, path: Path) -> None:
        """Open or make the mark of the data file at `path`."""
        try:
            self._file = os.open(f"{path}-mark", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"{path}-mark: {error.strerror}") from error

    @staticmethod
    def of(path: Path) -> int:
        """Return the number in the mark of the data file at `path`; 0 if the mark is missing or incomplete."""
        try:
            data = Path(f"{path}-mark").read_bytes()
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise StoreError(f"{path}-mark: {error.strerror}") from error
        if len(data) < _MARK.size:
            return 0
        number, check = _MARK.unpack_from(data)
        return int(number) if check == zlib.crc32(data[:8]) else 0

    def write(self, number: int) -> None:
        """Write `number`. On a full disk this may fail silently."""
        head = struct.pack("<Q", number)
        _pwrite(self._file, head + struct.pack("<I", zlib.crc32(head)), _MARK.size, 0)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
