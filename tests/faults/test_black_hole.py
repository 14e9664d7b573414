"""Consumers whose packets vanish without a word: fault 5."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from .blackhole import command
from .processes import environment


@pytest.mark.parametrize(
    ("keepalive", "timeout"),
    [
        pytest.param(5, 3, id="by default", marks=pytest.mark.slow),
        pytest.param(1, 1, id="short pings", marks=pytest.mark.soak),
    ],
)
def test_05_packets_vanish(tmp_path: Path, keepalive: int, timeout: int) -> None:
    """Their messages are back within keepalive + timeout + 1 s, and they know it themselves.

    When packets pass again they go on, and nothing is lost. The clients ping every 2 s and wait 2 s for an answer: they
    know after 5 s at most.
    """
    words = [*command(), sys.executable, "-m", "faults.blackhole", str(tmp_path), str(keepalive), str(timeout)]
    done = subprocess.run(words, env=environment(), capture_output=True, text=True, timeout=150, check=False)
    print(done.stdout[-6_000:])
    assert done.returncode == 0, done.stderr[-3_000:]
