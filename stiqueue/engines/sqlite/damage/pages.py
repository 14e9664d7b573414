"""Reads the pages of a damaged data file without SQLite.

Any part may be garbage: the reader skips what it cannot parse, and the caller verifies each row by its checksum. The
format is described in https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from stiqueue.engines.sqlite.damage import wal
from stiqueue.engines.sqlite.schema import PAGE_SIZE

Value: TypeAlias = int | float | str | bytes | None
Record: TypeAlias = tuple[int | None, list[Value]]
"""A row's key (None in an index) and its columns."""

INDEX_INNER, TABLE_INNER, INDEX_LEAF, TABLE_LEAF = _KINDS = 2, 5, 10, 13
_HEADER = 8
"""Bytes of a leaf's header."""
_POINTER_ROOT, _POINTER_FREE, _POINTER_TREE = 1, 2, 5
_INTEGER_SIZES = (0, 1, 2, 3, 4, 6, 8)

_GARBAGE = (IndexError, ValueError, struct.error, OverflowError)
"""The exceptions that parsing garbage raises."""


class PageFile:
    """The pages of a data file after its last transaction, including those in the write-ahead log."""

    def __init__(self, data: bytes, log: bytes) -> None:
        """Read the file's content `data` and its log; both may be truncated, damaged or empty."""
        self._data = data
        self._log = log
        self._images: dict[int, list[int]] = {}
        """The positions of each page in the log, the latest last."""
        self.suspect: set[int] = set()
        """Pages whose latest image in the log has a wrong checksum."""
        count = -(-len(data) // PAGE_SIZE)
        for frame in wal.committed(log):
            self._images.setdefault(frame.page, []).append(frame.start)
            (self.suspect.discard if frame.sound else self.suspect.add)(frame.page)
            count = frame.size if frame.size and frame.sound else max(count, frame.page)
        self.count = count
        self.incomplete: set[int] = set()
        """Pages with more content than their header accounts for."""
        self._free = self._free_pages()

    def page(self, number: int) -> bytes:
        """Return the latest image of a page, padded with zeros if truncated; b"" if there is none."""
        if number in self._images:
            start = self._images[number][-1]
            return self._log[start : start + PAGE_SIZE]
        there = self._data[(number - 1) * PAGE_SIZE : number * PAGE_SIZE] if number > 0 else b""
        return there.ljust(PAGE_SIZE, b"\0") if there else b""

    def records(self) -> Iterator[tuple[int, Record | None]]:
        """Iterate over all rows of pages in use, as (page, row); an unreadable row is None."""
        for number in range(1, self.count + 1):
            if number not in self._free:
                yield from ((number, record) for record in self._rows(number, self.page(number)))

    def older(self) -> Iterator[Record]:
        """Iterate over the rows in older images of suspect pages; some of these rows were deleted since."""
        for number in sorted(self.suspect):
            for start in reversed(self._images[number][:-1]):
                yield from filter(None, self._rows(number, self._log[start : start + PAGE_SIZE]))
            at = (number - 1) * PAGE_SIZE
            yield from filter(None, self._rows(number, self._data[at : at + PAGE_SIZE]))

    def carved(self, numbers: Iterable[int]) -> Iterator[Record]:
        """Iterate over everything that looks like a row in pages with unreliable headers.

        Some of these rows were deleted.
        """
        for number in sorted(numbers):
            page = self.page(number)
            for at in range(_HEADER, len(page)):
                with contextlib.suppress(*_GARBAGE):
                    yield self._table_row(page, at)

    def _rows(self, number: int, page: bytes) -> Iterator[Record | None]:
        begin = 100 if number == 1 else 0
        if len(page) < PAGE_SIZE:
            return
        kind = page[begin]
        if kind != TABLE_LEAF and self._pointer(number) not in (_POINTER_ROOT, _POINTER_TREE):
            return  # part of a long message
        index = kind in (INDEX_INNER, INDEX_LEAF)
        first = begin + (12 if kind == INDEX_INNER else _HEADER)
        cells = int.from_bytes(page[begin + 3 : begin + 5], "big")
        if kind not in _KINDS or (kind == TABLE_LEAF and _has_more(page, begin, cells)):
            self.incomplete.add(number)
        for at in range(first, min(first + 2 * cells, PAGE_SIZE - 1), 2):
            start = int.from_bytes(page[at : at + 2], "big") + (4 if kind == INDEX_INNER else 0)
            try:
                yield self._index_row(page, start) if index else self._table_row(page, start)
            except _GARBAGE:
                if kind != TABLE_INNER:  # an inner page has no rows, unless it is a leaf with a damaged kind
                    yield None

    def _table_row(self, page: bytes, at: int) -> Record:
        length, at = _varint(page, at)
        key, at = _varint(page, at)
        here = _here(length)
        payload = page[at : at + min(length, here)]
        if length > here:
            payload += self._overflow(int.from_bytes(page[at + here : at + here + 4], "big"), length - here)
        return key, _columns(payload, length)

    def _index_row(self, page: bytes, at: int) -> Record:
        length, at = _varint(page, at)
        return None, _columns(page[at : at + length], length)

    def _overflow(self, number: int, length: int) -> bytes:
        parts: list[bytes] = []
        seen: set[int] = set()
        while length > 0:
            page = self.page(number)
            if len(page) < PAGE_SIZE or number in seen:
                raise ValueError("the chain of a long message is broken")
            seen.add(number)
            parts.append(page[4 : 4 + length])
            length -= len(parts[-1])
            number = int.from_bytes(page[:4], "big")
        return b"".join(parts)

    # -- which pages are in use ---------------------------------------------------------------------------------------

    def _pointer(self, number: int) -> int:
        """Return the type of a page by the file's pointer map."""
        if number == 1:
            return _POINTER_ROOT
        each = PAGE_SIZE // 5 + 1
        page = 2 + (number - 2) // each * each
        if page == number:
            return 0
        at = 5 * (number - page - 1)
        return (self.page(page)[at : at + 1] or b"\0")[0]

    def _free_pages(self) -> set[int]:
        """Return the free pages: their rows were deleted."""
        kinds: Mapping[int, int] = {number: self._pointer(number) for number in range(3, self.count + 1)}
        free = {number for number, kind in kinds.items() if kind == _POINTER_FREE}
        listed, trunk = set[int](), int.from_bytes(self.page(1)[32:36], "big")
        while trunk and trunk not in listed and trunk <= self.count:
            page = self.page(trunk)
            listed.add(trunk)
            count = min(int.from_bytes(page[4:8], "big"), PAGE_SIZE // 4 - 2)
            listed.update(struct.unpack_from(f">{count}I", page, 8) if len(page) == PAGE_SIZE else ())
            trunk = int.from_bytes(page[:4], "big")
        return free | {number for number in listed if kinds.get(number, 0) not in (1, 2, 3, 4, 5)}


def _here(length: int) -> int:
    """Return the bytes of a row of `length` bytes that its own page holds; the rest is in overflow pages."""
    most = PAGE_SIZE - 35
    if length <= most:
        return most
    least = (PAGE_SIZE - 12) * 32 // 255 - 23
    part = least + (length - least) % (PAGE_SIZE - 4)
    return part if part <= most else least


def _has_more(page: bytes, begin: int, cells: int) -> bool:
    """Return whether a leaf has content outside of its cells and its free space."""
    unused, content, fragments = struct.unpack_from(">HxxHB", page, begin + 1)
    left = PAGE_SIZE - content - fragments
    try:
        for at in range(begin + _HEADER, begin + _HEADER + 2 * cells, 2):
            start = int.from_bytes(page[at : at + 2], "big")
            length, after = _varint(page, start)
            _, after = _varint(page, after)
            left -= after - start + min(length, _here(length)) + (4 if length > _here(length) else 0)
        for _ in range(PAGE_SIZE // 4):
            if not unused:
                break
            unused, size = struct.unpack_from(">HH", page, unused)
            left -= size
    except _GARBAGE:
        return True
    return bool(left)


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return the varint at `at`, and the position after it."""
    value = 0
    for n in range(8):
        byte = data[at + n]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + n + 1
    return value << 8 | data[at + 8], at + 9


def _columns(payload: bytes, length: int) -> list[Value]:
    """Parse the columns of a record."""
    if len(payload) != length:
        raise ValueError("the record is cut")
    size, at = _varint(payload, 0)
    kinds: list[int] = []
    while at < size:
        kind, at = _varint(payload, at)
        kinds.append(kind)
    columns: list[Value] = []
    for kind in kinds:
        if kind in (0, 8, 9):
            value: Value = None if kind == 0 else kind - 8
        elif kind <= 6:
            width = _INTEGER_SIZES[kind]
            value = int.from_bytes(payload[at : at + width], "big", signed=True)
            at += width
        elif kind == 7:
            (value,) = struct.unpack_from(">d", payload, at)
            at += 8
        else:
            width = (kind - 12) // 2
            raw = payload[at : at + width]
            value = raw.decode() if kind % 2 else raw
            at += width
        columns.append(value)
    if at != length:
        raise ValueError("the record has another length than its columns")
    return columns
