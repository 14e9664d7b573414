"""The types of arguments: a value of the wrong type is refused with a sentence that says what to write.

Each check raises `InvalidRequest` naming the argument. The ranges of the protocol's fields are in `stiqueue.limits`.
"""

from __future__ import annotations

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import timedelta
from numbers import Integral, Real
from typing import Any

from stiqueue.errors import InvalidRequest

SHOWN = 60
"""Most characters of a value that an error repeats."""

_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)(ms|[smhd]|)", re.ASCII)
_NUMBER = re.compile(r"\s*\d+(\.\d*)?\s*", re.ASCII)
_WITH_PORT = re.compile(r"(?P<host>\[[^\[\]]*\]|[^\[\]:/]*):(?P<port>\d{1,5})", re.ASCII)
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):/+(?P<rest>[^/]*)/*", re.ASCII)


def shown(value: object) -> str:
    """Return a value as an error shows it: one short line, whatever it is."""
    try:
        text = repr(value[:SHOWN] if isinstance(value, (str, bytes, bytearray)) else value)
    except Exception:  # an integer of 5,000 digits, or an object with a repr that fails
        return f"a value of type {type(value).__name__}"
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def seconds_of(text: str) -> float | None:
    """Parse a duration such as 90, 1.5, 250ms, 5m, 2h or 7d; return seconds, or None if it is none."""
    match = _DURATION.fullmatch(text.strip())
    return float(match[1]) * _UNITS[match[2]] if match else None


def check_seconds(
    name: str, value: Any, most: float, *, least: float = 0.0, positive: bool = False, reason: str = "BAD_DURATION"
) -> None:
    """Check a duration in seconds: a finite number from `least` (with `positive`: above 0) to `most`."""
    if not _is(value, float, Real):
        meant = _seconds_meant(name, value)
        raise InvalidRequest(f"{name}: {shown(value)} is not a number of seconds; write {meant}", reason)
    # Written so that NaN fails as well.
    if not (0 < value <= most if positive else least <= value <= most):
        low = "more than 0" if positive else f"{least:g}"
        written = f"{value:g}" if isinstance(value, float) else shown(value)
        raise InvalidRequest(f"{name}: {written} s is not within {low} to {most:g} s", reason)


def _is(value: object, usual: type, kind: type) -> bool:
    """Return whether a value is a number of this `kind`, which True is not; asking for the `usual` type is cheaper."""
    return type(value) is usual or (isinstance(value, kind) and not isinstance(value, bool))


def _seconds_meant(name: str, value: object) -> str:
    if isinstance(value, timedelta):
        return f"{name}.total_seconds()"
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return f"{name}={value.strip()}, without quotes"
    return f"{name}=5 or {name}=0.5"


def check_whole(name: str, value: Any, low: int, high: int, reason: str) -> None:
    """Check a whole number from `low` to `high`."""
    if not _is(value, int, Integral):
        raise InvalidRequest(f"{name}: {shown(value)} is not a whole number; write {low} to {high}", reason)
    if not low <= value <= high:
        raise InvalidRequest(f"{name}: {shown(value)} is not within {low} to {high}", reason)


def check_text(name: str, value: Any, reason: str, otherwise: str = "") -> None:
    """Check that a value is a `str`; `otherwise` says what to write, where that is known."""
    if not isinstance(value, str):
        raise InvalidRequest(
            f"{name}: {shown(value)} is of type {type(value).__name__}; write {otherwise or _text_meant(name, value)}",
            reason,
        )


def encoded(name: str, text: str, reason: str) -> bytes:
    """Return a text in UTF-8, if that can hold it."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name}: {error}", reason) from error


def _text_meant(name: str, value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{name}.decode()"
    return "text" if value is None else f"str({name})"


def check_flag(name: str, value: Any) -> None:
    """Check that a value is True or False: the text "false" would be true."""
    if not isinstance(value, bool) and not (isinstance(value, int) and value in (0, 1)):
        raise InvalidRequest(f"{name}: {shown(value)} is neither True nor False", "BAD_OPTION")


def check_logger(logger: Any) -> None:
    """Check that `logger` is one, of `logging` or of its kind."""
    if not callable(getattr(logger, "warning", None)):
        raise InvalidRequest(f'logger: {shown(logger)} is none; write logging.getLogger("name")', "BAD_OPTION")


def check_kind(
    name: str, value: Any, kind: type | tuple[type, ...], otherwise: str, reason: str = "BAD_OPTION"
) -> None:
    """Check that a value is of a `kind`; `otherwise` says what to write."""
    if not isinstance(value, kind):
        raise InvalidRequest(f"{name}: {shown(value)} is of type {type(value).__name__}; write {otherwise}", reason)


def check_host(host: str) -> None:
    """Check that `host` is a name or an address, without a port, a scheme or brackets.

    Raises:
        InvalidRequest: it is something else; says what to write.
    """
    check_text("host", host, "BAD_OPTION", 'a name or an address such as "localhost"')
    if not host.strip():
        raise InvalidRequest('host: it is empty; write a name or an address such as "localhost"', "BAD_OPTION")
    meant = _host_meant(host)
    if meant:
        raise InvalidRequest(f"host: {shown(host)} is not a name or an address; write {meant}", "BAD_OPTION")


def check_port(port: int, low: int = 1) -> None:
    """Check that a server can have this `port`: gRPC takes 99999 for 34463.

    Raises:
        InvalidRequest: it cannot.
    """
    if isinstance(port, str) and port.strip().isdecimal():
        raise InvalidRequest(f"port: {port!r} is text; write port={port.strip()}, without quotes", "BAD_OPTION")
    check_whole("port", port, low, 65_535, "BAD_OPTION")


def _host_meant(host: str) -> str:
    """Return what to write instead of `host`; empty when it can be a name or an address."""
    scheme = _SCHEME.fullmatch(host)
    rest = scheme["rest"] if scheme else host
    ported = _WITH_PORT.fullmatch(rest)
    if ported:
        return f'host="{ported["host"].strip("[]") or "localhost"}", port={ported["port"]}'
    bare = rest.strip("[]")
    if _is_address(bare) or (bare.isprintable() and not re.search(r"[\s:/\[\]]", bare)):
        return "" if bare == host else f'host="{bare}"'
    return 'the name or the address alone, such as "localhost", and the port as port=1234'


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def no_such_argument(owner: str, given: Iterable[str], known: Iterable[str]) -> TypeError:
    """Return the error for unknown keyword arguments, with the name that was perhaps meant."""
    names, known = sorted(given), list(known)
    text = f"{owner} has no argument {', '.join(names)}"
    meant = [match for name in names for match in difflib.get_close_matches(name, known, 1)]
    return TypeError(f"{text}; did you mean {', '.join(dict.fromkeys(meant))}?" if meant else text)


def named(qualified: str) -> Callable[[Any], Any]:
    """Return a decorator that names a method as users know it: in a TypeError Python tells the class it stands in."""

    def decorate(method: Any) -> Any:
        method.__qualname__ = qualified
        return method

    return decorate
