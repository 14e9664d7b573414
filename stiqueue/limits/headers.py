"""The headers of a message."""

from __future__ import annotations

from collections.abc import Mapping

from stiqueue.arguments import check_kind, check_text, shown
from stiqueue.errors import InvalidRequest
from stiqueue.limits.sizes import at_most, utf8_size
from stiqueue.message import DEAD_ATTEMPTS_HEADER, DEAD_QUEUE_HEADER, DEAD_REASON_HEADER, STAGING_HEADER

MAX_HEADERS = 64
MAX_HEADERS_BYTES = 8 << 10

TRACE_HEADERS = frozenset(("traceparent", "tracestate"))
"""Where W3C's trace context travels. They do not count in the size of a message, for `MESSAGE_ROOM` is enough for
them: a program that is traced can send what it could send before."""

OWN_HEADERS = frozenset((DEAD_QUEUE_HEADER, DEAD_REASON_HEADER, DEAD_ATTEMPTS_HEADER, STAGING_HEADER))
"""Headers that StiQueue adds to messages. They count neither among the headers of a message nor in its size, so that
whatever a server has can be enqueued elsewhere: a dead letter may have three more headers than its message had."""
MAX_OWN_HEADERS_BYTES = 2 << 10
"""Bytes of all of these together; the longest that StiQueue makes take 1.3 KiB."""


def headers_size(headers: Mapping[str, str]) -> int:
    """Return the UTF-8 bytes of all keys and values."""
    return sum(len(key.encode()) + len(value.encode()) for key, value in headers.items())


def check_headers(headers: Mapping[str, str]) -> int:
    """Check the headers of one message; return their bytes, without those of `OWN_HEADERS`.

    Raises:
        InvalidRequest: there are too many or too long ones, or one is not text.
    """
    if not headers and headers.__class__ is dict:
        return 0
    check_kind("headers", headers, Mapping, 'a dict such as {"n": "1"}', "BAD_HEADERS")
    if not OWN_HEADERS.isdisjoint(headers):
        own = {name: text for name, text in headers.items() if name in OWN_HEADERS}
        size = _headers_bytes(own)
        if size > MAX_OWN_HEADERS_BYTES:
            raise InvalidRequest(
                f"headers: {size:,} bytes of {', '.join(sorted(own))} are above the limit of {MAX_OWN_HEADERS_BYTES:,}",
                "BAD_HEADERS",
            )
        headers = {name: text for name, text in headers.items() if name not in own}
    at_most("headers", len(headers), MAX_HEADERS, "BAD_HEADERS")
    if "" in headers:
        raise InvalidRequest("headers: a key has at least one character", "BAD_HEADERS")
    used = _headers_bytes(headers)
    if used > MAX_HEADERS_BYTES:
        raise InvalidRequest(
            f"headers: {used:,} bytes of keys and values are above the limit of {MAX_HEADERS_BYTES:,}", "BAD_HEADERS"
        )
    return used


def _headers_bytes(headers: Mapping[str, str]) -> int:
    """Check that keys and values are text; return their bytes."""
    used = 0
    for key, text in headers.items():
        check_text("headers", key, "BAD_HEADERS", "keys that are text")
        if text.__class__ is not str:
            check_text(f"headers[{shown(key)}]", text, "BAD_HEADERS", "text, as in str(value)")
        used += utf8_size("headers", key, "BAD_HEADERS") + utf8_size("headers", text, "BAD_HEADERS")
    return used
