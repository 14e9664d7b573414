"""Scans SQLite's write-ahead log before SQLite opens it.

SQLite stops reading the log at the first frame with a wrong checksum and silently drops everything after it. That is
right for a transaction torn by a power cut, which is always the last one, but it loses confirmed messages if the middle
of the log is damaged. The scan tells them apart: after damage, further whole transactions follow.

The format is described in https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from stiqueue.engines.sqlite.schema import PAGE_SIZE

_HEADER = struct.Struct(">8I")
_FRAME = struct.Struct(">6I")
_MAGIC = 0x377F0682
"""The lowest bit is the byte order of the checksums: 0 little, 1 big."""
_MOST_PAGES = 1 << 28
"""A terabyte: a frame of a later page is garbage."""


class WalScan(NamedTuple):
    """The result of a scan."""

    frames: int
    """Good frames before the first bad one."""
    commits: int
    """Transactions that end in these frames."""
    lost_commits: int
    """Transactions that end after the first bad frame: SQLite would drop them."""
    pages: frozenset[int] = frozenset()
    """The pages of whole transactions in the good frames."""
    ignored: bool = False
    """Whether SQLite would drop the whole log, because its header is damaged."""

    @property
    def damaged(self) -> bool:
        """Whether SQLite would drop more than a last, torn transaction."""
        return self.lost_commits > 1


def scan(path: Path) -> WalScan:
    """Scan the log at `path`; a missing or empty log is not damaged."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        data = b""
    if len(data) < _HEADER.size:
        return WalScan(0, 0, 0)
    magic, _, page_size, _, salt1, salt2, sum1, sum2 = _HEADER.unpack_from(data)
    size = _FRAME.size + page_size
    if magic & ~1 != _MAGIC or page_size < 512 or page_size & (page_size - 1):
        return WalScan(0, 0, _commits_by_shape(data), ignored=True)
    order = "<" if magic & 1 == 0 else ">"
    state = _checksum(data[:24], (0, 0), order)
    if state != (sum1, sum2):
        return WalScan(0, 0, _commits_by_shape(data), ignored=True)
    frames = commits = lost = 0
    pages, coming = set[int](), set[int]()
    good = True
    for start in range(_HEADER.size, len(data) - size + 1, size):
        page, commit, frame1, frame2, frame_sum1, frame_sum2 = _FRAME.unpack_from(data, start)
        current = (frame1, frame2) == (salt1, salt2)
        if good and current:
            state = _checksum(data[start : start + 8], state, order)
            state = _checksum(data[start + _FRAME.size : start + size], state, order)
            good = state == (frame_sum1, frame_sum2)
        else:
            good = False  # the end of the log if only frames of an earlier use follow
        if good:
            frames += 1
            commits += commit > 0
            coming.add(page)
            if commit:
                pages |= coming
                coming.clear()
        elif current:
            lost += commit > 0
    return WalScan(frames, commits, lost, frozenset(pages))


class Frame(NamedTuple):
    """One page in a log."""

    page: int
    start: int
    """The position of its content in the log."""
    size: int
    """In the last frame of a transaction, the number of pages of the file; otherwise 0."""
    sound: bool
    """Whether its checksum is right."""


def committed(data: bytes) -> Iterator[Frame]:
    """Iterate over the frames of whole transactions in a log, including those after damage.

    The checksum of a frame continues the checksum in the previous frame's header. So a frame can be verified even if
    the content of the previous one is damaged.
    """
    header = _HEADER.unpack_from(data) if len(data) >= _HEADER.size else (0,) * 8
    order = ">" if header[0] == _MAGIC | 1 else "<"
    whole = header[0] & ~1 == _MAGIC and _checksum(data[:24], (0, 0), order) == header[6:]
    size = _FRAME.size + PAGE_SIZE
    starts = range(_HEADER.size, len(data) - size + 1, size)
    heads = [_FRAME.unpack_from(data, start) for start in starts]
    if not heads:
        return
    if not whole and sum(_is_sound(data, size, n, ">") for n in range(1, min(4, len(heads)))):
        order = ">"
    salts = header[4:6] if whole else _newest(data, size, heads, order)
    ends = [n for n, head in enumerate(heads) if head[1] and head[2:4] == salts]
    for n, head in enumerate(heads[: ends[-1] + 1] if ends else ()):
        # A frame between frames of the newest use belongs to it, even if its salts are damaged.
        if 0 < head[0] <= _MOST_PAGES:
            sound = head[2:4] == salts and _is_sound(data, size, n, order)
            yield Frame(head[0], starts[n] + _FRAME.size, head[1] if head[1] <= _MOST_PAGES else 0, sound)


def is_in_file(path: Path, log: Path) -> bool:
    """Return whether the data file has every page of its log, so that nothing is lost with the log.

    This is so if a new use of the log begins with a torn header: the whole log was copied to the file before. Pages
    behind the end of the file in its last transaction were given back and are not copied.
    """
    data = log.read_bytes()
    last: dict[int, int] = {}
    count = 0
    for frame in committed(data):
        if not frame.sound:
            return False
        last[frame.page] = frame.start
        count = frame.size or count
    with path.open("rb") as file:
        for page, start in last.items():
            if page > count:
                continue
            file.seek((page - 1) * PAGE_SIZE)
            if file.read(PAGE_SIZE) != data[start : start + PAGE_SIZE]:
                return False
    return True


def _is_sound(data: bytes, size: int, number: int, order: str) -> bool:
    """Return whether a frame's checksum is right, as the continuation of the previous frame's or the header's."""
    start = _HEADER.size + number * size
    before = data[24:32] if number == 0 else data[start - size + 16 : start - size + 24]
    first, second = struct.unpack(">2I", before)
    state = _checksum(data[start : start + 8], (first, second), order)
    state = _checksum(data[start + _FRAME.size : start + size], state, order)
    return state == struct.unpack_from(">2I", data, start + 16)


def _newest(data: bytes, size: int, heads: Sequence[tuple[int, ...]], order: str) -> tuple[int, ...]:
    """Return the salts of the newest use of a log with a damaged header: those of its first sound frame."""
    return next((head[2:4] for n, head in enumerate(heads) if _is_sound(data, size, n, order)), heads[0][2:4])


def _commits_by_shape(data: bytes) -> int:
    """Estimate the transactions of a log with a damaged header, from 4 KiB frames with equal salts."""
    size = _FRAME.size + PAGE_SIZE
    heads = [_FRAME.unpack_from(data, start) for start in range(_HEADER.size, len(data) - size + 1, size)]
    if not heads:
        return 0
    salts = [head[2:4] for head in heads]
    newest = max(set(salts), key=salts.count)
    commits = len([head for head in heads if head[1] and head[2:4] == newest])
    # At least two: the header is written before any transaction, so its damage is never a torn end.
    return max(2, commits) if commits else 0


def _checksum(data: bytes, state: tuple[int, int], order: str) -> tuple[int, int]:
    """Continue SQLite's checksum over `data`, 8 bytes at a time."""
    first, second = state
    words = struct.unpack(f"{order}{len(data) // 4}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
