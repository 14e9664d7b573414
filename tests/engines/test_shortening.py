"""Small changes do not wait while the log is moved into the file, and do not put that off for long."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.clock import FakeClock

from stiqueue.engines.local.change import Change, Insert
from stiqueue.engines.sqlite import space
from stiqueue.engines.sqlite.journal import Journal
from stiqueue.engines.sqlite.schema import PAGE_SIZE
from stiqueue.engines.sqlite.store import Store
from stiqueue.errors import StiQueueError
from stiqueue.rules.entry import Properties
from stiqueue.rules.run import Run

from .desk import PATIENCE

SMALL, LARGE = 100, space.LOG_PAGES * PAGE_SIZE
SHORTENED = "shortened"


class Bench:
    """A journal that notes in which order it does what. Its changes are noted on its own thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._last_id = 0
        self.order: list[str] = []
        self.over = threading.Event()

    def write(self, name: str, size: int, then: list[tuple[str, int]]) -> None:
        """Have a message written; once it is, the first of `then` follows, and so on."""
        self._last_id += 1

        def done(error: StiQueueError | None) -> None:
            assert error is None
            self.order.append(name)
            if then:
                self.write(*then[0], then[1:])
            else:
                self.over.set()

        insert = Insert("queue", Run(self._last_id, [bytes(size)], Properties(1_000)), size)
        self._journal.write(Change(inserts=[insert], tell=done))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    journal = Journal(tmp_path / "stiqueue.db", FakeClock(), logging.getLogger("test"), sync=False)
    bench = Bench(journal)
    journal.recover()
    checkpoint = Store.checkpoint

    def noting(store: Store, cut: bool = False) -> None:
        bench.order.append(SHORTENED)
        checkpoint(store, cut)

    monkeypatch.setattr(Store, "checkpoint", noting)
    journal.start()
    yield bench
    journal.close()


def test_a_small_change_goes_before_the_shortening_and_a_large_one_behind(bench: Bench) -> None:
    bench.write("large", LARGE, [("small", SMALL), ("other", LARGE)])
    assert bench.over.wait(PATIENCE)
    assert bench.order[:4] == ["large", "small", SHORTENED, "other"]


def test_small_changes_that_never_end_put_the_shortening_off_only_for_a_moment(bench: Bench) -> None:
    small = [(f"{number}", SMALL) for number in range(2 * space.SPARE_PAGES)]
    bench.write("large", LARGE, small)
    assert bench.over.wait(PATIENCE)
    assert 1 < bench.order.index(SHORTENED) < space.SPARE_PAGES // 2
    assert bench.order.count(SHORTENED) < 5
