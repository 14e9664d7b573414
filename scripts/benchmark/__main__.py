"""The command: ``scripts/bench [--quick] [--only NAME ...] [--systems NAME ...]``."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from benchmark import report
from benchmark.measure import SCALES, Stage
from benchmark.peers import QUICK_SYSTEMS, SYSTEMS
from benchmark.workloads import QUICK, WORKLOADS


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__.split(":")[0] if __doc__ else None)
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", dest="scale", action="store_const", const="quick", help="under 2 minutes, less exact")
    size.add_argument(
        "--smoke", dest="scale", action="store_const", const="smoke", help="seconds; proves that it works"
    )
    parser.add_argument("--only", nargs="+", choices=WORKLOADS, metavar="NAME", help=f"of: {', '.join(WORKLOADS)}")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, metavar="NAME", help=f"of: {', '.join(SYSTEMS)}")
    parser.add_argument("--out", type=Path, help="where JSON and plots go (default: docs/benchmarks for a full run)")
    parser.set_defaults(scale="full")
    return parser.parse_args(arguments)


def main() -> None:
    """Measure and report; ends with 1 when something failed, not when a target is missed."""
    asked = parse()
    began = time.monotonic()
    names = asked.only or (list(WORKLOADS) if asked.scale == "full" else QUICK)
    systems = asked.systems or (list(SYSTEMS) if asked.scale == "full" else QUICK_SYSTEMS)
    with Stage(SCALES[asked.scale], systems) as stage:
        for name in names:
            WORKLOADS[name](stage)
    print(report.text(stage.results))
    whole = asked.scale == "full" and not asked.only and not asked.systems
    if out := asked.out or (Path("docs/benchmarks") if whole else None):
        report.write(stage.results, asked.scale, out)
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(1 if stage.results.failures else 0)


if __name__ == "__main__":
    main()
