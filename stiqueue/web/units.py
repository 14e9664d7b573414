"""How pages write numbers, durations, sizes and times."""

from __future__ import annotations

from datetime import datetime, timezone

_SIZES = ("B", "kB", "MB", "GB", "TB")
_SPANS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


def duration(seconds: float) -> str:
    """Return a duration of at most two parts, such as ``250ms``, ``4.2s``, ``1m 5s`` or ``3d 4h``."""
    if seconds < 0:
        return f"-{duration(-seconds)}"
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < 10:
        return f"{seconds:.1f}s"
    left = int(seconds)
    for position, (length, unit) in enumerate(_SPANS):
        if left >= length:
            parts = [f"{left // length}{unit}"]
            if position + 1 < len(_SPANS):
                smaller, name = _SPANS[position + 1]
                if rest := left % length // smaller:
                    parts.append(f"{rest}{name}")
            return " ".join(parts)
    return "0s"


def age(milliseconds: float) -> str:
    """Return an age in milliseconds as a `duration`; empty for 0."""
    return duration(milliseconds / 1000) if milliseconds else ""


def number(value: float) -> str:
    """Return a whole number with separators."""
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Return a number of messages a second; empty for 0."""
    if value < 0.05:
        return ""
    return f"{value:,.1f}" if value < 10 else f"{value:,.0f}"


def size(count: float) -> str:
    """Return a number of bytes, such as ``1.5 MB``."""
    for unit in _SIZES[:-1]:
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} {_SIZES[-1]}"


def clock(milliseconds: int) -> str:
    """Return a time in milliseconds since 1970 as people and programs read it, in UTC."""
    if not milliseconds:
        return ""
    try:
        when = datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
    except (OverflowError, ValueError, OSError):
        return f"{milliseconds} ms since 1970"
    return when.strftime("%Y-%m-%d %H:%M:%S UTC")
