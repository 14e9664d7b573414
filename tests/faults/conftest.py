"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .run import Run


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    """Yield a run that records in a directory of its own."""
    with Run(tmp_path) as started:
        yield started
