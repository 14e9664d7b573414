"""Each program of the guide, and of the pages on clients and calls, prints what it says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue import SQServer

ROOT = Path(__file__).parents[1]
PATIENCE = 20.0
EXAMPLES = re.findall(
    r"^## ([^\n]+)\n(?:(?!^## ).)*?```python\n(.*?)```\n\n```text\n(.*?)```",
    (ROOT / "docs" / "guide.md").read_text(),
    re.M | re.S,
)
"""(heading, program, output)"""
PAGES = "".join((ROOT / "docs" / name).read_text() for name in ("clients.md", "calls.md"))
CLIENTS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGES, re.S)


def test_every_page_has_a_program() -> None:
    text = (ROOT / "docs" / "guide.md").read_text()
    assert [heading for heading, _, _ in EXAMPLES] == re.findall(r"^## ([^\n]+)$", text, re.M)


@pytest.mark.parametrize(
    ("program", "output"),
    [*(example[1:] for example in EXAMPLES), *CLIENTS],
    ids=[*(example[0] for example in EXAMPLES), *(f"clients {number}" for number in range(len(CLIENTS)))],
)
def test_a_program_prints_what_it_says(server: SQServer, program: str, output: str) -> None:
    program = re.sub(r"SQClient\((?!port)", f"SQClient(port={server.port}, ", program)
    program = re.sub(r"(Worker\(\w+, .*)\)", rf"\1, port={server.port})", program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == output
