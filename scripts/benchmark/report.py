"""Reports a run: a table of medians and ranges, the ratios with their targets, and everything as JSON."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmark.measure import Results
from benchmark.peers import SYSTEMS
from benchmark.targets import BOUNDS, RATES, judge


def text(results: Results) -> str:
    """Return the report for people."""
    return "\n".join([*_figures(results), "", *_ratios(results), "", *_notes(results)])


def _figures(results: Results) -> Iterator[str]:
    for metric, systems in results.rounds.items():
        yield f"\n{metric}"
        for system, values in systems.items():
            spread = f"{_number(min(values))} .. {_number(max(values))}" if len(values) > 1 else ""
            yield f"  {SYSTEMS[system].label:30} {_number(statistics.median(values)):>12}   {spread}"


def _ratios(results: Results) -> Iterator[str]:
    yield f"{'ratio (median of the rounds)':66} {'got':>8}  {'range':>16}  target"
    for verdict in judge(results):
        target = verdict.target
        wanted = "" if target.bound is None else f"{'at most' if target.at_most else 'at least'} {target.bound:.3g}"
        mark = "" if verdict.met else "  MISSED"
        yield f"{target.text:66} {verdict.ratio:8.2f}  {verdict.low:7.2f} .. {verdict.high:6.2f}  {wanted}{mark}"
    for label, metric, system, unit, most in BOUNDS:
        value = results.median(metric, system)
        if value is not None:
            mark = "" if value / unit <= most else "  MISSED"
            yield f"{label:66} {value / unit:8.2f}  {'':17}  at most {most}{mark}"
    for label, metric, system, least in RATES:
        value = results.median(metric, system)
        if value is not None:
            mark = "" if value >= least else "  MISSED"
            yield f"{label:66} {value:8,.0f}  {'':17}  at least {least:,}{mark}"


def _notes(results: Results) -> Iterator[str]:
    for system, reason in results.absent.items():
        yield f"not measured: {SYSTEMS[system].label}: {reason}"
    yield from (f"failed: {failure}" for failure in results.failures)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def data(results: Results, scale: str) -> dict[str, Any]:
    """Return the report for programs."""
    return {
        "scale": scale,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {"cores": os.cpu_count(), "system": platform.system(), "python": platform.python_version()},
        "units": "rates (.in, .out, both, .fill): messages a second; p50, p99 and crowd calls: microseconds",
        "rounds": {metric: dict(systems) for metric, systems in results.rounds.items()},
        "ratios": [
            {
                "what": verdict.target.text,
                "ratio": verdict.ratio,
                "low": verdict.low,
                "high": verdict.high,
                "target": verdict.target.bound,
                "at_most": verdict.target.at_most,
                "met": verdict.met,
            }
            for verdict in judge(results)
        ],
        "absent": results.absent,
        "failures": results.failures,
    }


def write(results: Results, scale: str, directory: Path) -> None:
    """Write the JSON and the plots into `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{scale}.json").write_text(json.dumps(data(results, scale), indent=1) + "\n")
    try:
        from benchmark import plots
    except ImportError:
        print("no plots: matplotlib is not installed")
    else:
        plots.draw(results, scale, directory)
