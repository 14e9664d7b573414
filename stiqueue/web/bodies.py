"""How a message is written on a page: its body as JSON, text or hex, and what its headers say."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from stiqueue.message import DEAD_ATTEMPTS_HEADER, DEAD_QUEUE_HEADER, DEAD_REASON_HEADER

LINE = 160
"""Characters of a body on the line of a table."""
MOST_JSON_BYTES = 256 << 10
"""A larger body is not parsed."""
MOST_TEXT = 64 << 10
"""Characters of a body on a page; the rest can be downloaded."""
MOST_HEX_BYTES = 4 << 10
_HEX_WIDTH = 16

FORMS = ("json", "text", "hex")

_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}.*")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Written:
    """A body as text."""

    form: str
    """Of `FORMS`."""
    text: str
    is_cut: bool
    possible: tuple[str, ...]
    """The forms in which this body can be written."""


def line(body: bytes) -> str:
    """Return the beginning of a body, as text on one line."""
    start = body[: LINE * 4]
    try:
        text = start.decode()
    except UnicodeDecodeError as error:
        if len(body) <= len(start) or error.start < len(start) - 4:  # not merely cut within a character
            return start[: LINE // 3].hex(" ")
        text = start[: error.start].decode()
    text = _CONTROL.sub("\ufffd", " ".join(text.split()))
    return text if len(text) <= LINE and len(body) <= len(start) else text[:LINE] + "\u2026"


def write(body: bytes, form: str = "") -> Written:
    """Write a body in a `form`; by default in the first that it has."""
    pretty = _json(body)
    text = _text(body)
    possible = tuple(
        each for each, fits in zip(FORMS, (pretty is not None, text is not None, True), strict=True) if fits
    )
    chosen = form if form in possible else possible[0]
    if chosen == "hex":
        return Written(chosen, _hex(body[:MOST_HEX_BYTES]), len(body) > MOST_HEX_BYTES, possible)
    whole = (pretty if chosen == "json" else text) or ""
    return Written(chosen, whole[:MOST_TEXT], len(whole) > MOST_TEXT, possible)


def _json(body: bytes) -> str | None:
    if len(body) > MOST_JSON_BYTES or not body.lstrip()[:1] or body.lstrip()[:1] not in b'{["':
        return None
    text, size = list[str](), 0
    try:
        # In parts, because indentation makes of a deep body a text a thousand times as long.
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(json.loads(body)):
            text.append(part)
            size += len(part)
            if size > MOST_TEXT:
                break
    except (ValueError, RecursionError):
        return None
    return "".join(text).encode(errors="backslashreplace").decode()  # half a character is written as it came


def _text(body: bytes) -> str | None:
    try:
        return _CONTROL.sub("\ufffd", body.decode())
    except UnicodeDecodeError:
        return None


def is_plain(body: bytes) -> bool:
    """Whether a body can be typed as text: a browser changes control characters and ends of lines."""
    try:
        return _CONTROL.search(body.decode()) is None
    except UnicodeDecodeError:
        return False


def _hex(body: bytes) -> str:
    lines = []
    for at in range(0, len(body), _HEX_WIDTH):
        part = body[at : at + _HEX_WIDTH]
        shown = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in part)
        lines.append(f"{at:06x}  {part.hex(' '):<{_HEX_WIDTH * 3}} {shown}")
    return "\n".join(lines)


@dataclass(frozen=True)
class Origin:
    """Where a dead letter came from."""

    queue: str
    reason: str
    attempts: str


def origin(headers: Mapping[str, str]) -> Origin | None:
    """Return where a message came from if it is a dead letter."""
    if DEAD_QUEUE_HEADER not in headers:
        return None
    return Origin(
        headers[DEAD_QUEUE_HEADER], headers.get(DEAD_REASON_HEADER, ""), headers.get(DEAD_ATTEMPTS_HEADER, "")
    )


def trace_id(headers: Mapping[str, str]) -> str:
    """Return the id of the trace in W3C's ``traceparent``; empty without one."""
    match = _TRACE.fullmatch(headers.get("traceparent", ""))
    return match[1] if match else ""
