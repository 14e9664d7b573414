"""The long forms of the fault tests that judge what became of every message: see ``scripts/soak --help``."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from .checker import Result, Verdict
from .endurance import endure
from .killing import kill_again_and_again
from .nemesis import struggle
from .run import Run

FAULTS_OF_A_KIND = 5
"""How often each kind of fault strikes at least in a long run of the nemesis."""


def _kills(run: Run, options: argparse.Namespace) -> Result:
    begin = time.monotonic()
    result, longest = kill_again_and_again(
        run, options.kills, options.producers, options.consumers, options.via, options.rate
    )
    print(f"{options.kills} kills in {time.monotonic() - begin:.0f} s, longest start {longest:.2f} s")
    return result


def _nemesis(run: Run, options: argparse.Namespace) -> Result:
    result, struck = struggle(run, options.seconds, options.producers, options.consumers, (2.0, 8.0))
    if options.seconds >= 600 and min(struck.values()) < FAULTS_OF_A_KIND:
        sys.exit("a kind of fault struck too seldom")
    return result


def _load(run: Run, options: argparse.Namespace) -> Result:
    return endure(run, options.seconds, options.producers, options.consumers, options.share)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/soak",
        description="Run clients in processes of their own under faults, and judge what became of every message.",
        epilog="FAULT_SEED in the environment repeats the random choices of a run.",
    )
    forms = parser.add_subparsers(title="what to run", required=True, metavar="FORM")

    def form(name: str, do: Callable[[Run, argparse.Namespace], Result], text: str, clients: tuple[int, int]) -> None:
        added = forms.add_parser(
            name, help=text, description=text, formatter_class=argparse.ArgumentDefaultsHelpFormatter
        )
        added.set_defaults(do=do)
        added.add_argument("--producers", type=int, default=clients[0], help="processes that enqueue")
        added.add_argument("--consumers", type=int, default=clients[1], help="processes that dequeue")
        added.add_argument("--rounds", type=int, default=1, help="how often, each time with another seed")
        if name == "kills":
            added.add_argument("--kills", type=int, default=50, help="how many; 50 take a minute or two")
            added.add_argument("--via", choices=("client", "stub"), default="client", help="SQClient or the stub")
            added.add_argument("--rate", type=float, default=4.0, help="requests a second and producer")
        else:
            added.add_argument("--seconds", type=float, default=1_500.0 if name == "load" else 600.0, help="how long")
        if name == "load":
            added.add_argument("--share", type=float, default=1.0, help="of the load that the server can bear")

    form("kills", _kills, "Kill a server again and again.", (3, 2))
    form("nemesis", _nemesis, "Kill, stop and restart server and consumers, break the network, fill the disk.", (4, 8))
    form("load", _load, "Kill clients of a server under load, and see that its memory does not grow.", (4, 6))
    return parser


def report(result: Result) -> None:
    """Print what became of the messages."""
    lost = sum(count for name, count in result.errors.items() if name.startswith("lost") or name == "vanished")
    for name, number in (
        ("attempted", result.attempted),
        ("confirmed", result.confirmed),
        ("delivered", result.delivered),
        ("duplicates", result.duplicates.total()),
        ("recovered", len(result.recovered)),
        ("lost", lost),
        ("invented", len(result.invented)),
        ("acked again", len(result.acked_again)),
        ("duplicates without a cause", len(result.duplicated)),
        ("held by two", len(result.two_holders)),
        ("out of order", len(result.inversions)),
    ):
        print(f"{name:27} {number:9,}")


def main() -> None:
    """Run and report; end with 1 unless all is good."""
    options = _parser().parse_args()
    good = True
    for _ in range(options.rounds):
        with tempfile.TemporaryDirectory() as directory, Run(Path(directory)) as run:
            try:
                result = options.do(run, options)
            except pytest.skip.Exception as cannot:
                sys.exit(str(cannot))
            report(result)
        good &= result.verdict is Verdict.GOOD
    sys.exit(not good)


if __name__ == "__main__":
    main()
