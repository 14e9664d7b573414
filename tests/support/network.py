"""Hosts of a test on a network of their own: a network namespace each, on one bridge to which the test belongs, too."""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Sequence

import pytest

COMMAND_SECONDS = 10


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=COMMAND_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")


class Network:
    """Hosts on one bridge. Links can be taken down, and pairs of hosts be parted. A context manager."""

    def __init__(self, number: int) -> None:
        """Make `number` hosts, or skip the test where that is not allowed; in CI it must be."""
        key = secrets.token_hex(3)
        self._bridge = f"sq{key}"
        self._names = [f"sq{key}-{each}" for each in range(1, number + 1)]
        subnet = f"10.{200 + secrets.randbelow(50)}.{secrets.randbelow(250)}"
        self.hosts = [f"{subnet}.{each}" for each in range(1, number + 1)]
        """Their addresses."""
        self._gateway = f"{subnet}.254"
        self._parted: list[tuple[str, str]] = []
        try:
            self._make()
        except OSError as error:
            self.close()
            if os.environ.get("CI"):
                pytest.fail(f"no network namespaces can be made, and in CI they must be: {error}", pytrace=False)
            pytest.skip(f"needs network namespaces: {error}")

    def _make(self) -> None:
        _ip("link", "add", self._bridge, "type", "bridge")
        _ip("addr", "add", f"{self._gateway}/24", "dev", self._bridge)
        _ip("link", "set", self._bridge, "up")
        for name, host in zip(self._names, self.hosts, strict=True):
            _ip("netns", "add", name)
            _ip("link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", name)
            _ip("link", "set", name, "master", self._bridge, "up")
            _ip("-n", name, "addr", "add", f"{host}/24", "dev", "eth0")
            _ip("-n", name, "link", "set", "eth0", "up")
            _ip("-n", name, "link", "set", "lo", "up")

    def prefix(self, number: int) -> Sequence[str]:
        """Return the words before a command that is to run on a host, from 0."""
        return ["ip", "netns", "exec", self._names[number]]

    def cut(self, number: int) -> None:
        """Take down the link of a host."""
        _ip("link", "set", self._names[number], "down")

    def part(self, number: int, other: int | None) -> None:
        """Let two hosts not reach each other; None: a host and the test."""
        address = self._gateway if other is None else self.hosts[other]
        self._blackhole(number, address)
        if other is not None:
            self._blackhole(other, self.hosts[number])

    def _blackhole(self, number: int, address: str) -> None:
        _ip("-n", self._names[number], "route", "add", "blackhole", f"{address}/32")
        self._parted.append((self._names[number], address))

    def heal(self) -> None:
        """Let all reach each other again."""
        for name in self._names:
            _ip("link", "set", name, "up")
        while self._parted:
            name, address = self._parted.pop()
            _ip("-n", name, "route", "del", "blackhole", f"{address}/32")

    def close(self) -> None:
        """Take it away; nothing may run on its hosts any more."""
        for words in (*(["netns", "del", name] for name in self._names), ["link", "del", self._bridge]):
            subprocess.run(["ip", *words], capture_output=True, timeout=COMMAND_SECONDS, check=False)

    def __enter__(self) -> Network:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        self.close()
