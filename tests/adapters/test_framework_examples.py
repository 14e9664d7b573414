"""The examples of the adapters do what they say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue import SQServer

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize(
    ("program", "printed"),
    [
        ("celery_app.py", r"now: 9 16\nlater: 25 after a second: True\n"),
        ("django_app.py", r"working on default\nsquares: \[9, 16, 25\]\n"),
        ("dramatiq_app.py", r"9\n16\n25\n"),
        ("taskiq_app.py", r"squares: \[9, 16, 25\]\n"),
    ],
)
def test_an_example_runs(server: SQServer, program: str, printed: str) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / program],
        env=os.environ | {"STIQUEUE_PORT": str(server.port)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(printed, done.stdout), done.stdout + done.stderr
