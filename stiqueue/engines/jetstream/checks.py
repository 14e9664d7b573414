"""Checks that a cluster loses no confirmed message.

By default a NATS server syncs its disk every two minutes; in tests, a power cut then lost 73 % or all of the confirmed
messages. A server reports this setting only on its monitoring port.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

from stiqueue.errors import InvalidRequest, StoreError

OLDEST = (2, 12, 1)
"""The oldest supported version: it has atomic batches with message ids, schedules, and ttls."""
DEFAULT_PORT, DEFAULT_MONITOR_PORT = 4222, 8222
MONITOR_SECONDS = 2.0


class Address(NamedTuple):
    """The addresses of a cluster's servers."""

    servers: list[str]
    """The URL of each server, for clients."""
    monitors: list[str]
    """The URL of each server's monitoring port."""

    @property
    def shown(self) -> str:
        """The servers without their passwords."""
        return shown(self.servers)


def shown(servers: Sequence[str]) -> str:
    """Return the URLs of servers for people, without passwords."""
    return ", ".join(server.rpartition("@")[2].removeprefix("nats://") for server in servers)


def read_address(text: str) -> Address:
    """Parse ``nats://[user:password@]host[:port],host[:port]...[?monitor=port[,port...]]``.

    Raises:
        InvalidRequest: the text has another form.
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
    """Return why this server version is not supported; "" if it is."""
    numbers = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    if numbers and tuple(map(int, numbers.groups())) >= OLDEST:
        return ""
    return f"version {version} is not supported; the oldest supported version is {'.'.join(map(str, OLDEST))}"


async def find_problems(monitors: Sequence[str]) -> list[str]:
    """Ask each server for its settings; return the reasons not to trust the cluster, one line each.

    Servers that are down are no problem as long as more than half of them answer.
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
        problems += [f"its sync setting is unknown, its monitoring port does not answer: {each}" for each in silent]
    return problems


def _problems(answer: dict[str, Any]) -> list[str]:
    found = [version_problem(str(answer["varz"].get("version", "unknown")))]
    jetstream = answer["jsz"]
    if jetstream.get("disabled") or not jetstream.get("config"):
        found.append("JetStream is off")
    elif not jetstream["config"].get("sync_always"):
        found.append("it does not sync every write: a power cut loses confirmed messages; set sync_interval: always")
    return [problem for problem in found if problem]


def _ask(monitor: str) -> dict[str, Any] | str:
    """Return a server's status pages, or the error as text."""
    found: dict[str, Any] = {}
    for page, query in (("varz", ""), ("jsz", "?config=1")):
        try:
            with urllib.request.urlopen(f"{monitor}/{page}{query}", timeout=MONITOR_SECONDS) as response:
                found[page] = json.load(response)
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            return f"{monitor}: {reason}"
    return found


async def is_safe(version: str, monitors: Sequence[str], unsafe: bool, logger: logging.Logger) -> bool:
    """Return whether a cluster keeps what it confirms; False only if `unsafe` accepts one that does not.

    Raises:
        StoreError: the cluster loses messages, or it is too old.
    """
    problem = version_problem(version)
    if problem:  # nothing works with an old version, so --unsafe does not override this
        raise StoreError(f"cannot use the NATS server: {problem}")
    problems = await find_problems(monitors)
    if not problems:
        return True
    text = "; ".join(problems)
    if not unsafe:
        raise StoreError(f"the NATS cluster can lose confirmed messages ({text}); --unsafe uses it anyway")
    logger.warning("unsafe: confirmed messages can be lost (%s)", text)
    return False
