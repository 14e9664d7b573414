"""Random faults of every kind, one after another, while clients are at work: fault 46."""

from __future__ import annotations

import pytest

from .checker import Verdict
from .nemesis import struggle
from .run import Run


@pytest.mark.slow
def test_46_every_kind_of_fault(run: Run) -> None:
    """The server is killed, stopped, restarted; consumers are; connections break; the disk is full.

    Lost 0, invented 0, acked again 0, two holders 0, inversions 0. The long form is ``scripts/soak nemesis``.
    """
    result, struck = struggle(run, 15, producers=2, consumers=4, pause=(0.1, 0.5))
    assert result.verdict is Verdict.GOOD, result.summary()
    assert len(struck) == 9
