"""Reads a schedule: a TOML file, or the arguments of `Schedule.add`. Names every mistake, not only the first."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stiqueue.arguments import check_kind, check_seconds, check_text, check_whole, seconds_of, shown
from stiqueue.cron.entry import LATE_SECONDS, NAME_HEADER, TIME_HEADER, Entry, Missed
from stiqueue.cron.times import Cron, Every, Times, zone_named
from stiqueue.errors import InvalidRequest, NotSupported
from stiqueue.limits import DAY, MAX_KEY_BYTES, MAX_PRIORITY, MAX_TTL, check_headers, check_utf8, queue_name

MARKS = "stiqueue-cron"
"""The default queue of marks."""
MAX_NAME = 100
"""Longest name: with the time it makes a request id, which has at most 128 bytes."""
MAX_INTERVAL = 366 * DAY
MAX_WITHIN = 31 * DAY
MAX_JITTER = DAY
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{MAX_NAME}}}", re.ASCII)
_TIMES = ("cron", "every", "timezone")
KEYS = frozenset(field.name for field in fields(Entry)) - {"times"} | set(_TIMES)
TOP_KEYS = ("entry", "marks")


class BadSchedule(InvalidRequest):
    """Raised when a schedule has mistakes; nothing was changed."""

    reason = "BAD_SCHEDULE"

    def __init__(self, mistakes: Iterable[str]) -> None:
        """Keep the mistakes, one line each, as `mistakes`."""
        self.mistakes = list(mistakes)
        super().__init__("; ".join(self.mistakes))


@dataclass(frozen=True, slots=True)
class File:
    """What a file says."""

    entries: list[Entry]
    marks: str = MARKS


def read_file(path: str | os.PathLike[str]) -> File:
    """Read a TOML file with a table ``[[entry]]`` for each job.

    Raises:
        BadSchedule: it cannot be read, is not TOML, or has mistakes.
        NotSupported: the extra ``cron`` is not installed.
    """
    name = os.fspath(path)
    try:
        tables = _parser()(Path(path).read_text("utf-8"))
    except OSError as error:
        raise BadSchedule([f"{name}: {error.strerror or error}"]) from error
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or a thousand brackets
        raise BadSchedule([f"{name}: {error}"]) from error
    mistakes = [f"{name}: {_unknown(key, TOP_KEYS)}" for key in tables if key not in TOP_KEYS]
    marks = tables.get("marks", MARKS)
    try:
        queue_name(marks)
    except InvalidRequest as error:
        mistakes.append(f"{name}: marks: {str(error).removeprefix('queue: ')}")
    given = tables.get("entry", [])
    if not isinstance(given, list) or not all(isinstance(each, dict) for each in given):
        raise BadSchedule([*mistakes, f"{name}: entry: each job is a table that begins with [[entry]]"])
    if not given:
        mistakes.append(f"{name}: it has no job: each is a table that begins with [[entry]]")
    entries: list[Entry] = []
    for number, table in enumerate(given, 1):
        label = f"{name}: entry {number}"
        if isinstance(table.get("name"), str):
            label += f' "{table["name"][:MAX_NAME]}"'
        try:
            entry = read_entry(table)
        except BadSchedule as error:
            mistakes += [f"{label}: {mistake}" for mistake in error.mistakes]
            continue
        if any(entry.name == other.name for other in entries):
            mistakes.append(f"{label}: name: another entry has it; runs are told apart by it")
        entries.append(entry)
    if mistakes:
        raise BadSchedule(mistakes)
    return File(entries, marks)


def _parser() -> Callable[[str], dict[str, Any]]:
    for module in ("tomllib", "tomli"):  # the first came with Python 3.11
        if find_spec(module):
            loads: Callable[[str], dict[str, Any]] = import_module(module).loads
            return loads
    raise NotSupported("a schedule in a file needs tomli on this Python: pip install 'stiqueue[cron]'", "NO_TOML")


def read_entry(table: Mapping[str, Any]) -> Entry:
    """Read one job.

    Raises:
        BadSchedule: it has mistakes, all of which are named.
        NotSupported: the extra ``cron`` is not installed.
    """
    mistakes = [_unknown(key, KEYS) for key in table if key not in KEYS]
    values: dict[str, Any] = {}
    for key, check in _CHECKS.items():
        if key in table:
            try:
                values[key] = check(table[key])
            except InvalidRequest as error:
                mistakes.append(str(error))
    if "name" not in table:
        mistakes.append('name: it is missing; write a name such as "nightly-report"')
    times = _times(table, mistakes)
    if mistakes or times is None:
        raise BadSchedule(mistakes)
    return Entry(times=times, **values)


def _times(table: Mapping[str, Any], mistakes: list[str]) -> Times | None:
    """Return when a job runs; None: a mistake was added."""
    if ("cron" in table) == ("every" in table):
        which = "both are given" if "cron" in table else "both are missing"
        mistakes.append(f'cron, every: {which}; write one of cron = "0 3 * * *" and every = "10s"')
        return None
    try:
        if "every" in table:
            if "timezone" in table:
                mistakes.append("timezone: it goes with cron; every counts from 1970, in UTC")
            return _every(table["every"])
        expression, zone = table["cron"], table.get("timezone", "UTC")
        check_text("cron", expression, "BAD_CRON", 'text such as "0 3 * * *"')
        try:
            check_text("timezone", zone, "BAD_TIMEZONE", 'a name such as "Europe/Berlin"')
            zone_named(zone)
        except InvalidRequest as error:
            mistakes.append(str(error))
            zone = "UTC"  # to check the expression as well
        return Cron(expression, zone)
    except InvalidRequest as error:
        mistakes.append(str(error))
        return None


def _every(value: Any) -> Every:
    seconds = _duration("every", value, MAX_INTERVAL, least=1.0)
    if seconds != int(seconds):
        raise InvalidRequest(f"every: {shown(value)} is not a whole number of seconds", "BAD_DURATION")
    return Every(int(seconds))


def _duration(name: str, value: Any, most: float, least: float = 0.0) -> float:
    """Return seconds, of a number or a text such as "90s" or "1.5h"."""
    seconds = seconds_of(value) if isinstance(value, str) else value
    if seconds is None:
        text = f"{name}: {shown(value)} is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d"
        raise InvalidRequest(text, "BAD_DURATION")
    check_seconds(name, seconds, most, least=least)
    return float(seconds)


def _name(value: Any) -> str:
    check_text("name", value, "BAD_NAME", 'a name such as "nightly-report"')
    if not _NAME.fullmatch(value):
        raise InvalidRequest(f"name: {shown(value)} is not 1 to {MAX_NAME} of A-Z a-z 0-9 . _ -", "BAD_NAME")
    return str(value)


def _body(value: Any) -> bytes:
    check_kind("body", value, (str, bytes), "text", "BAD_BODY")
    try:
        return value if isinstance(value, bytes) else str(value).encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"body: {error}", "BAD_BODY") from error


def _headers(value: Any) -> dict[str, str]:
    check_kind("headers", value, Mapping, 'a table such as { to = "ann@example.org" }', "BAD_HEADERS")
    # With the two that each run has besides.
    check_headers({**value, NAME_HEADER: "x" * MAX_NAME, TIME_HEADER: "2026-11-27T03:00:00Z"})
    return dict(value)


def _priority(value: Any) -> int:
    check_whole("priority", value, 0, MAX_PRIORITY, "BAD_PRIORITY")
    return int(value)


def _key(value: Any) -> str:
    check_utf8("key", value, MAX_KEY_BYTES, "BAD_KEY")
    return str(value)


def _missed(value: Any) -> Missed:
    try:
        return Missed(value)
    except ValueError:
        raise InvalidRequest(f'missed: {shown(value)} is none of "none", "one" and "all"', "BAD_OPTION") from None


_CHECKS: dict[str, Callable[[Any], Any]] = {
    "name": _name,
    "queue": queue_name,
    "body": _body,
    "headers": _headers,
    "priority": _priority,
    "key": _key,
    "ttl": lambda value: _duration("ttl", value, MAX_TTL, least=0.001),
    "jitter": lambda value: _duration("jitter", value, MAX_JITTER),
    "missed": _missed,
    "within": lambda value: _duration("within", value, MAX_WITHIN, least=LATE_SECONDS),
}


def _unknown(key: str, known: Iterable[str]) -> str:
    meant = difflib.get_close_matches(key, known, 1)
    return f"{key}: there is no such key" + (f"; did you mean {meant[0]}?" if meant else "")
