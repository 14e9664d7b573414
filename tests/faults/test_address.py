"""At which addresses a server listens: fault 44."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .processes import wait_until

SECONDS = 10.0
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}
EVERYWHERE = {"00000000", "0" * 32}
"""As /proc has them: IPv4, and the same in IPv6."""


def listening(pid: int) -> set[str]:
    """Return the addresses at which a process listens, as /proc has them."""
    inodes = {os.readlink(f"/proc/{pid}/fd/{each}") for each in os.listdir(f"/proc/{pid}/fd")}
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                found.add(fields[1].rpartition(":")[0])
    return found


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("options", "addresses", "warnings"),
    [([], LOOPBACK, 0), (["--host", "0.0.0.0"], EVERYWHERE, 1)],
    ids=["by default", "for all"],
)
def test_44_the_address_by_default(tmp_path: Path, options: list[str], addresses: set[str], warnings: int) -> None:
    """Without an option the server listens on loopback alone; for all, without TLS, it warns in one line, each time."""
    command = [sys.executable, "-m", "stiqueue.sqserver", "--port", "0", "--metrics-port", "0", *options]
    log = tmp_path / "log"
    for _ in range(2):
        with log.open("wb") as out, subprocess.Popen(command, cwd=tmp_path, stderr=out) as process:
            try:
                wait_until(lambda: "messages in" in log.read_text(), SECONDS * 2, "a server", 0.05)
                found = listening(process.pid)
                assert found
                assert found <= addresses
            finally:
                process.terminate()
                process.wait(SECONDS)
        assert len(re.findall("WARNING .* is reachable from other machines", log.read_text())) == warnings
