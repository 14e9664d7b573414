"""Sizes: how many, and how many bytes of UTF-8."""

from __future__ import annotations

from stiqueue.arguments import check_text
from stiqueue.errors import InvalidRequest


def at_most(name: str, number: int, limit: int, reason: str) -> None:
    """Check that `number` things are not more than `limit`."""
    if number > limit:
        raise InvalidRequest(f"{name}: {number:,} are above the limit of {limit:,}", reason)


def check_utf8(name: str, text: str, limit: int, reason: str) -> None:
    """Check that `text` is text of at most `limit` bytes of UTF-8."""
    size = utf8_size(name, text, reason)
    if size > limit:
        raise InvalidRequest(f"{name}: {size:,} bytes are above the limit of {limit:,}", reason)


def utf8_size(name: str, text: str, reason: str) -> int:
    """Return the UTF-8 bytes of `text`."""
    if not isinstance(text, str):
        check_text(name, text, reason)
    try:
        return len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name}: {error}", reason) from error
