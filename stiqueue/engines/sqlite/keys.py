"""Lists of keys, as statements take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, repeat

MOST_KEYS = 1_024
"""The most rows or keys in one statement."""


def runs(keys: Sequence[int]) -> Iterator[range]:
    """Return the runs of consecutive numbers in `keys`, which are sorted."""
    for _, numbered in groupby(enumerate(keys), lambda each: each[1] - each[0]):
        same = [key for _, key in numbered]
        yield range(same[0], same[-1] + 1)


def parts(keys: Sequence[int]) -> Iterator[Sequence[int]]:
    """Return lists of at most MOST_KEYS keys, padded with the last one, so that SQLite prepares few statements."""
    for start in range(0, len(keys), MOST_KEYS):
        part = keys[start : start + MOST_KEYS]
        yield [*part, *repeat(part[-1], (1 << (len(part) - 1).bit_length()) - len(part))]


def marks(values: Sequence[object]) -> str:
    """Return a placeholder for each of `values`."""
    return ",".join("?" * len(values))
