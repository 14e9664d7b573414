"""What a cluster must promise before messages are given to it.

By default a NATS server syncs its disk every two minutes; a power cut then took 73 % of the confirmed messages, or all
of them. What a server really does it says only on its monitoring port.
"""

from __future__ import annotations

import asyncio
import json
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from stiqueue.errors import InvalidRequest

OLDEST = (2, 12, 1)
"""The oldest version with all that is needed: atomic batches that know message ids, schedules, times to live."""
DEFAULT_PORT, DEFAULT_MONITOR_PORT = 4222, 8222
MONITOR_SECONDS = 2.0


class Address(NamedTuple):
    """Where the servers of a cluster are."""

    servers: list[str]
    """The URL of each server, for clients."""
    monitors: list[str]
    """The URL of each server's monitoring port."""

    @property
    def shown(self) -> str:
        """The servers without what is secret."""
        return ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in self.servers)


def read_address(text: str) -> Address:
    """Read ``nats://[user:password@]host[:port],host[:port]...[?monitor=port[,port...]]``.

    Raises:
        InvalidRequest: it is no such address.
    """
    scheme, separator, rest = text.partition("://")
    hosts, _, query = rest.partition("?")
    hosts = hosts.rstrip("/")
    options = parse_qs(query)
    if scheme not in ("nats", "tls") or not separator or not hosts or options.keys() - {"monitor"}:
        raise InvalidRequest(
            f"engine: {_without_secret(text)!r} is not nats://host[:port],...[?monitor=port,...]", "BAD_OPTION"
        )
    login, _, plain = hosts.rpartition("@")
    servers, monitors = [], []
    ports = options.get("monitor", [str(DEFAULT_MONITOR_PORT)])[0].split(",")
    for number, host in enumerate(plain.split(",")):
        try:
            parts = urlsplit(f"//{host}")
            port = parts.port or DEFAULT_PORT
            monitor = int(ports[min(number, len(ports) - 1)])
        except ValueError:
            raise InvalidRequest(f"engine: {host!r} is not host[:port]", "BAD_OPTION") from None
        name = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
        if not name:
            raise InvalidRequest(f"engine: {host!r} has no host", "BAD_OPTION")
        servers.append(f"{scheme}://{login}{'@' if login else ''}{name}:{port}")
        monitors.append(f"http://{name}:{monitor}")
    return Address(servers, monitors)


def _without_secret(text: str) -> str:
    scheme, separator, rest = text.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"


def version_problem(version: str) -> str:
    """Return why a server of this version cannot be used; empty when it can."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) >= OLDEST:
        return ""
    return f"it is version {version}, and {'.'.join(map(str, OLDEST))} is the oldest that can be used"


async def find_problems(monitors: Sequence[str]) -> list[str]:
    """Ask each server what it promises; return why the cluster is not to be trusted, one line a problem.

    A server that is down is no problem as long as more than half of them answer.
    """
    answers = await asyncio.gather(*(asyncio.to_thread(_ask, monitor) for monitor in monitors))
    problems = [
        f"{monitor}: {problem}"
        for monitor, answer in zip(monitors, answers, strict=True)
        if not isinstance(answer, str)
        for problem in _problems(answer)
    ]
    silent = [answer for answer in answers if isinstance(answer, str)]
    if 2 * len(silent) >= len(answers):
        problems += [
            f"whether it syncs cannot be learnt, its monitoring port does not answer: {each}" for each in silent
        ]
    return problems


def _problems(answer: dict[str, Any]) -> list[str]:
    found = [version_problem(str(answer["varz"].get("version", "unknown")))]
    jetstream = answer["jsz"]
    if jetstream.get("disabled") or not jetstream.get("config"):
        found.append("JetStream is off")
    elif not jetstream["config"].get("sync_always"):
        found.append(
            "its disk is synced now and then only: a power cut loses confirmed messages; set sync_interval: always"
        )
    return [problem for problem in found if problem]


def _ask(monitor: str) -> dict[str, Any] | str:
    """Return what a server says of itself, or why it does not."""
    found: dict[str, Any] = {}
    for page, query in (("varz", ""), ("jsz", "?config=1")):
        try:
            with urllib.request.urlopen(f"{monitor}/{page}{query}", timeout=MONITOR_SECONDS) as response:
                found[page] = json.load(response)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            return f"{monitor}: {reason}"
    return found
