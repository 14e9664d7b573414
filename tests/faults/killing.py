"""A server that is killed again and again while clients are at work, and what became of their messages.

Run as a module it is the long form of test 13, with clients that reconnect by themselves: see ``scripts/soak --help``.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from .checker import Expectation, Result, Verdict
from .processes import wait_until
from .run import Run


def kill_again_and_again(
    run: Run, kills: int, producers: int, consumers: int, via: str = "stub", rate: float = 4.0
) -> tuple[Result, float]:
    """Kill a server at random moments while clients are at work; return the verdict, and the longest start in seconds.

    Each client is a process. `via` is ``stub`` for clients on the generated stub, or ``client`` for `SQClient`, which
    reconnects by itself; `rate` is how many requests each producer makes a second, of up to 100 messages.
    """
    server = run.server("--data", "stiqueue.db")
    senders = [run.client("produce", f"p{n}", "--batch", 100, "--rate", rate, "--via", via) for n in range(producers)]
    role = "client" if via == "client" else "consume"
    takers = [run.client(role, f"c{n}", *([] if via == "client" else ["--prefetch", 100])) for n in range(consumers)]
    wait_until(lambda: run.counts().acked >= 100, 30, "load")
    longest = 0.0
    for _ in range(kills):
        time.sleep(run.random.uniform(0.05, 1.5))
        run.inject.kill(server)
        begin = time.monotonic()
        run.inject.restart(server)
        longest = max(longest, time.monotonic() - begin)
    run.stop_clients(senders)
    run.stop_clients(takers)
    run.drain(seconds=120)
    return run.verdict(Expectation(confirmed=kills * 50)), longest


def main() -> None:
    """Report; end with 1 unless all is good."""
    parser = argparse.ArgumentParser(prog="scripts/soak", description="Kill a server again and again under load.")
    parser.add_argument("--kills", type=int, default=50, help="default 50: a minute or two")
    parser.add_argument("--producers", type=int, default=3, help="processes that enqueue, default 3")
    parser.add_argument("--consumers", type=int, default=2, help="processes that dequeue, default 2")
    parser.add_argument("--via", choices=("client", "stub"), default="client", help="SQClient (default) or the stub")
    parser.add_argument("--rate", type=float, default=4.0, help="requests a second and producer, default 4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, Run(Path(directory)) as run:
        begin = time.monotonic()
        result, longest = kill_again_and_again(
            run, options.kills, options.producers, options.consumers, options.via, options.rate
        )
        lost = sum(count for name, count in result.errors.items() if name.startswith("lost") or name == "vanished")
        print(f"{options.kills} kills in {time.monotonic() - begin:.0f} s, longest start {longest:.2f} s")
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
            ("out of order", len(result.inversions)),
        ):
            print(f"{name:27} {number:9,}")
    sys.exit(result.verdict is not Verdict.GOOD)


if __name__ == "__main__":
    main()
