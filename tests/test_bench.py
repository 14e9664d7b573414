"""The benchmark runs: the systems that need nothing but Python, at its smallest scale. What it finds is not judged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_benchmark_measures_and_writes_down(tmp_path: Path) -> None:
    systems = ["echo", "stiqueue", "stiqueue-durable"]
    workloads = ["single", "batch-1000", "batch-2000", "both", "latency", "beside-large"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmark", "--smoke", "--systems", *systems, "--only", *workloads, "--out", tmp_path],
        env=os.environ | {"PYTHONPATH": str(ROOT / "scripts")},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.glob("*.json")
    results = json.loads(path.read_text())
    for metric in (
        "single.in",
        "single.out",
        "batch-1000.in",
        "batch-2000.out",
        "both",
        "latency.deq-p50",
        "beside-large.enq-beside-p99",
    ):
        assert all(value > 0 for value in results["rounds"][metric]["stiqueue-durable"]), metric
    assert "memory, enq one by one / bare call" in done.stdout
