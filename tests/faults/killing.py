"""A server that is killed again and again while clients are at work, and what became of their messages (fault 13)."""

from __future__ import annotations

import time

from .checker import Expectation, Result
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
    wait_until(lambda: run.counts().acked >= 100, 90, "load")
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
