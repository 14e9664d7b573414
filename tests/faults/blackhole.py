"""A network of its own in which packets vanish without a word, as behind a cable that is pulled out.

Run as a module, in a network namespace of its own, it is fault 5: ``unshare --net python -m tests.faults.blackhole DIR
KEEPALIVE TIMEOUT``. The consumers live in another namespace, and a pair of virtual devices joins the two.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from support.services import missing

from .checker import Expectation, Verdict
from .notebook import CHANNEL_OPTIONS
from .processes import wait_until
from .run import Run

HERE, THERE = "10.77.0.1", "10.77.0.2"
BLACK_HOLE = ["root", "tbf", "rate", "8kbit", "burst", "10", "limit", "10"]
"""A queue that has room for no packet."""
EACH = 10
NOTICE_SECONDS = 90.0


def command() -> list[str]:
    """Return the words that let a program run in a namespace of its own; skip the test where that is not allowed."""
    for tool in ("unshare", "nsenter", "ip", "tc"):
        if shutil.which(tool) is None:
            missing(tool)
    words = ["unshare", "--net", "--map-root-user"]
    probe = f"ip link add here type veth peer name there && tc qdisc add dev here {' '.join(BLACK_HOLE)}"
    tried = subprocess.run([*words, "sh", "-c", probe], capture_output=True, text=True, timeout=30, check=False)
    if tried.returncode:
        missing(f"a network namespace of its own ({tried.stderr.strip()})")
    return words


class Network:
    """Two places, one of them that of this process, and the wire between them."""

    def __init__(self) -> None:
        """Lay the wire."""
        self._far = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        namespace = Path(f"/proc/{self._far.pid}/ns/net")
        wait_until(lambda: namespace.readlink() != Path("/proc/self/ns/net").readlink(), 30, "a far namespace")
        self.far = ["nsenter", f"--net={namespace}"]
        """What to put before a command that is to run at the far end."""
        _run(["ip", "link", "set", "lo", "up"])
        _run(["ip", "link", "add", "here", "type", "veth", "peer", "name", "there", "netns", str(self._far.pid)])
        for at, device, address in (([], "here", HERE), (self.far, "there", THERE)):
            _run([*at, "ip", "address", "add", f"{address}/24", "dev", device])
            _run([*at, "ip", "link", "set", device, "up"])

    def cut(self) -> None:
        """Let every packet vanish, both ways."""
        _run(["tc", "qdisc", "add", "dev", "here", *BLACK_HOLE])
        _run([*self.far, "tc", "qdisc", "add", "dev", "there", *BLACK_HOLE])

    def dropped(self) -> int:
        """Return how many packets to the far end have vanished."""
        shown = _run(["tc", "-s", "qdisc", "show", "dev", "here"])
        return int(shown.partition("(dropped ")[2].partition(",")[0])

    def heal(self) -> None:
        """Let them pass again."""
        _run(["tc", "qdisc", "delete", "dev", "here", "root"])
        _run([*self.far, "tc", "qdisc", "delete", "dev", "there", "root"])

    def close(self) -> None:
        """End the far place."""
        self._far.kill()
        self._far.wait(10)


def _run(words: Sequence[str]) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=30).stdout


def lose_packets(run: Run, network: Network, keepalive: int, timeout: int) -> None:
    """Cut the wire while consumers hold messages, until both ends know; mend it, and see that all goes on."""
    server = run.server("--keepalive", str(keepalive), "--keepalive-timeout", str(timeout), host="0.0.0.0")
    values = run.fill(2 * EACH)
    options = ("--prefetch", EACH, "--then", "hold", "--via", "wire")
    far = [
        run.client("consume", f"far{n}", *options, target=f"{HERE}:{server.port}", prefix=network.far) for n in range(2)
    ]
    for each in far:
        each.wait_for(f"holding {EACH}")

    begin, looked, lag = time.monotonic(), time.monotonic(), 0.0
    run.inject.begins("wire", "cut")
    network.cut()

    def back() -> bool:
        nonlocal looked, lag
        counts = run.counts()
        lag, looked = max(lag, time.monotonic() - looked), time.monotonic()
        return counts.ready == 2 * EACH and counts.leased == 0

    wait_until(back, NOTICE_SECONDS, "given back", 0.02)
    given_back = time.monotonic() - begin
    codes = [each.wait_for("ended", NOTICE_SECONDS) for each in far]
    noticed = time.monotonic() - begin
    assert network.dropped() > 0
    run.inject.took_effect("wire", "cut")
    assert codes == ["ended UNAVAILABLE"] * 2, codes

    network.heal()
    healed = time.monotonic()
    for each in far:
        each.wait_for(f"holding {EACH}")
    again = time.monotonic() - healed
    run.inject.healed("wire")
    for each in far:
        each.order("ack")
        assert each.wait_for("acked") == f"acked {EACH} stale 0"
    print(f"given back after {given_back:.2f} s, clients knew after {noticed:.2f} s, on again after {again:.2f} s")
    run.stop_clients()
    assert run.drain() == []
    result = run.verdict(Expectation(confirmed=len(values)))
    assert result.verdict is Verdict.GOOD, result.summary()
    assert result.duplicates.total() == 2 * EACH
    assert given_back <= keepalive + timeout + 1 + 2 * lag
    pings = {name: milliseconds / 1000 for name, milliseconds in CHANNEL_OPTIONS}
    client = pings["grpc.keepalive_time_ms"] + pings["grpc.keepalive_timeout_ms"] + 1
    assert noticed <= max(client, given_back) + 2 * lag


def main() -> None:
    """Do it; a failure is this process's end."""
    directory, keepalive, timeout = sys.argv[1:]
    network = Network()
    try:
        with Run(Path(directory)) as run:
            lose_packets(run, network, int(keepalive), int(timeout))
    finally:
        network.close()


if __name__ == "__main__":
    main()
