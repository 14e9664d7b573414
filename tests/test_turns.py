"""The suite itself: tests run side by side, but for those that are marked `alone`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.turns import MOST_WORKERS, number_of_workers
from support.waiting import PATIENCE

TESTS = Path(__file__).parent
CONFTEST = """
from support.turns import Turns

def pytest_configure(config):
    config.addinivalue_line("markers", "alone: nobody beside")
    config.pluginmanager.register(Turns(config), "turns")
"""
SUITE = """
import os, time, pytest

def write(word):
    with open(os.environ["TOLD"], "a") as told:
        told.write(f"{word}\\n")

@pytest.mark.parametrize("number", range(200))
def test_beside(number):
    write("beside")

@pytest.mark.alone
@pytest.mark.parametrize("number", range(3))
def test_alone(number):
    write("begin")
    time.sleep(0.1)  # in which the other worker could run many
    write("end")
"""


@pytest.mark.slow
def test_nothing_runs_beside_a_test_that_is_alone(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_suite.py").write_text(SUITE)
    told = tmp_path / "told"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2", "--dist", "worksteal"]
    done = subprocess.run(
        [*command, "--rootdir", str(tmp_path), str(tmp_path)],
        env={**os.environ, "TOLD": str(told), "PYTHONPATH": f"{TESTS}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )
    assert "203 passed" in done.stdout, done.stdout + done.stderr
    words = told.read_text().split()
    assert len(words) == 200 + 2 * 3
    begins = [number for number, word in enumerate(words) if word == "begin"]
    assert [words[number + 1] for number in begins] == ["end"] * 3
    assert begins == [begins[0] + 2 * number for number in range(3)], "those that are alone do not follow each other"


@pytest.mark.parametrize(
    ("paths", "side_by_side"),
    [
        ([], True),
        (["tests/cli"], True),
        (["tests/test_turns.py", "tests/test_docs.py"], True),
        (["tests/test_turns.py"], False),
        (["tests/test_turns.py::test_nothing_runs_beside_a_test_that_is_alone"], False),
    ],
)
def test_one_file_needs_no_workers(monkeypatch: pytest.MonkeyPatch, paths: list[str], side_by_side: bool) -> None:
    monkeypatch.chdir(TESTS.parent)
    workers = number_of_workers(paths)
    assert (1 < workers <= MOST_WORKERS) if side_by_side else workers == 0


@pytest.mark.slow
def test_auto_means_so_many() -> None:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-n", "auto", "--maxprocesses", "2"]
    for path, told in ("tests/support", True), ("tests/test_docs.py", False):
        done = subprocess.run(
            [*command, path], cwd=TESTS.parent, capture_output=True, text=True, timeout=2 * PATIENCE, check=False
        )
        assert ("2 workers" in done.stdout) == told, done.stdout
