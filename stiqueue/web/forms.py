"""Fields of forms as values: bodies, options, headers, durations."""

from __future__ import annotations

import binascii
import json
import re
from typing import Any

from starlette.requests import Request

from stiqueue.errors import InvalidRequest
from stiqueue.web.console import field_of, form_of

Fields = dict[str, list[str]]
_DURATION = re.compile(r"(\d+\.?\d*|\.\d+)\s*(ms|[smhd]|)", re.ASCII)
_UNITS = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


async def fields_of(request: Request) -> Fields:
    """Return the fields of a form; of a request without one, none.

    Raises:
        InvalidRequest: it is not a form.
    """
    if request.method != "POST":
        return {}
    try:
        return await form_of(request)
    except ValueError as error:
        raise InvalidRequest(f"form: {error}", "BAD_FORM") from error


def text_of(fields: Fields, name: str) -> str:
    """Return what was typed on several lines: a browser sends every line break as CR LF."""
    return field_of(fields, name).replace("\r\n", "\n")


def body_of(text: str, form: str) -> bytes:
    """Return the body that was typed as text, JSON or hex; see `text_of`."""
    if form == "hex":
        try:
            return binascii.unhexlify("".join(text.split()))
        except ValueError as error:
            raise InvalidRequest(
                "body: it is not hex; write two digits a byte, such as 68 65 6c", "BAD_FORM"
            ) from error
    if form == "json":
        try:
            json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(f"body: it is not JSON: {error}", "BAD_FORM") from error
    return text.encode()


def options_of(fields: Fields) -> dict[str, Any]:
    """Return the options of `enq` that were given."""
    options: dict[str, Any] = {}
    if text := field_of(fields, "priority").strip():
        options["priority"] = whole_of("priority", text)
    for name in ("delay", "ttl"):
        if text := field_of(fields, name).strip():
            options[name] = seconds_of(name, text)
    for name in ("request_id", "key", "unique_key"):
        if text := field_of(fields, name).strip():
            options[name] = text
    if headers := headers_of(field_of(fields, "headers")):
        options["headers"] = headers
    return options


def headers_of(text: str) -> dict[str, str]:
    """Return headers that were typed as NAME: VALUE, one a line."""
    headers = {}
    for line in text.splitlines():
        if line.strip():
            name, separator, value = line.partition(":")
            if not separator:
                raise InvalidRequest(f"headers: {line[:60]!r} is not NAME: VALUE", "BAD_FORM")
            headers[name.strip()] = value.strip()
    return headers


def seconds_of(name: str, text: str) -> float:
    """Return a duration that was typed as 90, 1.5, 250ms, 5m, 2h or 7d, in seconds."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InvalidRequest(
            f"{name}: {text[:60]!r} is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d", "BAD_DURATION"
        )
    return float(match[1]) * _UNITS[match[2]]


def whole_of(name: str, text: str) -> int:
    """Return a whole number that was typed."""
    if not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise InvalidRequest(f"{name}: {text[:60]!r} is not a whole number", "BAD_FORM")
    return int(text)
