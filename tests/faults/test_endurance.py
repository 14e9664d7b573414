"""Clients of a server under full load come and go: fault 49."""

from __future__ import annotations

import pytest

from .checker import Verdict
from .endurance import endure
from .run import Run


@pytest.mark.alone
@pytest.mark.slow
def test_49_full_load_while_clients_are_killed(run: Run) -> None:
    """8 s: nothing is lost, and the server uses no more at the end than at the beginning.

    The long form is ``scripts/soak load``.
    """
    result = endure(run, 8, producers=2, consumers=3, pause=(0.5, 1.0))
    assert result.verdict is Verdict.GOOD, result.summary()
