"""How tests share the machine: most run side by side, those marked `alone` one by one while all others wait.

A test is marked `alone` when it measures the machine (memory, processor time, how soon something happens) or takes all
of it, so that neither side can be wrong because of the other. Those tests come first.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

WORKERS_PER_CPU = 2
"""Many tests wait more than they work; with 3, those with a time limit fail on a slow machine."""
MOST_WORKERS = 12
KEY = "turns"
"""Under which the controller of pytest-xdist tells its workers where the locks are."""


def number_of_workers(arguments: Sequence[str]) -> int:
    """Return how many tests of `arguments` run side by side: one file in this process, workers take time to start."""
    paths = [Path(argument.partition("::")[0]) for argument in arguments]
    if len(paths) == 1 and paths[0].is_file():
        return 0
    return min(MOST_WORKERS, WORKERS_PER_CPU * (os.cpu_count() or 1))


class Turns:
    """The turns of one run. A plugin of pytest; does nothing where tests run one after another."""

    def __init__(self, config: pytest.Config) -> None:
        """Find the locks of this run, or make them if it is the controller's."""
        self._locks: Locks | None = None
        self._alone = False
        workerinput = getattr(config, "workerinput", None)
        if workerinput is not None:
            self._locks = Locks(Path(workerinput[KEY]))
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """Tell a worker where the locks are."""
        self._directory = self._directory or tempfile.TemporaryDirectory(prefix="stiqueue-turns-")
        node.workerinput[KEY] = self._directory.name

    def pytest_unconfigure(self) -> None:
        """Remove the locks."""
        if self._directory is not None:
            self._directory.cleanup()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Put first what runs alone: one worker gets all of it, and the others wait once."""
        items.sort(key=lambda item: not _is_alone(item))

    # Around everything, so that no time limit of a test runs while it waits for its turn.
    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """Wait for the turn of a test."""
        if self._locks is None:
            return (yield)
        if not self._alone:
            self._alone = _is_alone(item)
            self._locks.take(self._alone)
        try:
            return (yield)
        finally:
            # Whoever runs alone goes on until all of its kind are done.
            if not (self._alone and nextitem is not None and _is_alone(nextitem)):
                self._alone = False
                self._locks.give_back()


class Locks:
    """A lock that many processes have together or one has alone; who waits to be alone is let in before newcomers."""

    def __init__(self, directory: Path) -> None:
        """Use two files in `directory`."""
        self._door, self._room = ((directory / name).open("w") for name in ("door", "room"))

    def take(self, alone: bool) -> None:
        """Wait until nobody else has it, or `alone`."""
        import fcntl

        how = fcntl.LOCK_EX if alone else fcntl.LOCK_SH
        fcntl.flock(self._door, how)
        fcntl.flock(self._room, how)
        if not alone:
            fcntl.flock(self._door, fcntl.LOCK_UN)

    def give_back(self) -> None:
        """Let others have it. A process that dies does so, too."""
        import fcntl

        fcntl.flock(self._room, fcntl.LOCK_UN)
        fcntl.flock(self._door, fcntl.LOCK_UN)


def _is_alone(item: pytest.Item) -> bool:
    return item.get_closest_marker("alone") is not None
