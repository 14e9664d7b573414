"""How a message is written on a page: its body as JSON, text or hex, and what its headers say."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
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
_HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters, and those that turn the direction of text: with them a text looks like another."""
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[][{},:]|[^][{},:"\s]+')
"""Of a text that is JSON."""


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
    text = " ".join(text.split())
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


def visible(text: str) -> str:
    """Return a text with its hidden characters as JSON writes them: a backslash, u and four digits."""
    return _HIDDEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _json(body: bytes) -> str | None:
    if len(body) > MOST_JSON_BYTES or body.lstrip()[:1] not in (b"{", b"[", b'"'):
        return None
    try:
        text = body.decode()
        json.loads(text)
    except (ValueError, RecursionError):
        return None
    parts, size = list[str](), 0
    # In parts, because indentation makes of a deep body a text a thousand times as long.
    for part in _indented(text):
        parts.append(part)
        size += len(part)
        if size > MOST_TEXT:
            break
    return "".join(parts).encode(errors="backslashreplace").decode()  # half a character is written as it came


def _indented(text: str) -> Iterator[str]:
    """Iterate over the parts of JSON and what indents them; a parser would lose digits and doubled keys."""
    depth, before = 0, ""
    for found in _TOKEN.finditer(text):
        token = found[0]
        if token in ("]", "}"):
            depth -= 1
        is_empty = before + token in ("[]", "{}")
        if (before in ("[", "{", ",") or token in ("]", "}")) and not is_empty:
            yield "\n" + "  " * depth
        elif before == ":":
            yield " "
        if token in ("[", "{"):
            depth += 1
        before = token
        # Readable letters, where JSON may have their numbers.
        yield json.dumps(json.loads(token), ensure_ascii=False) if token[0] == '"' else token


def _text(body: bytes) -> str | None:
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def is_plain(body: bytes) -> bool:
    """Whether a body can be typed as text: a browser changes control characters and ends of lines."""
    try:
        return _HIDDEN.search(body.decode()) is None
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
