"""Prints results: formatted on a terminal, as plain lines elsewhere, as JSON for scripts.

Results go to stdout; notes, questions and progress go to stderr. Control characters from messages are escaped before a
terminal sees them, except by `deq` and `consume`, whose output is the message.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

import click

from stiqueue import standard
from stiqueue.message import Counts, Message, PeekedMessage

Row = Mapping[str, Any]


def on_terminal() -> bool:
    """Return whether stdout is a terminal."""
    return sys.stdout.isatty()


def has_rich() -> bool:
    """Return whether the extra ``cli`` is installed, which colours, live views and progress bars need."""
    return find_spec("rich") is not None


def note(text: str) -> None:
    """Print a one-line note to stderr; ignore errors, so that work goes on if stderr is closed or full."""
    sign = click.style("stiqueue:", fg="yellow") if sys.stderr.isatty() else "stiqueue:"
    with contextlib.suppress(OSError):
        click.echo(f"{sign} {' '.join(printable(line) for line in text.split())}", err=True)


def need(stream: str) -> None:
    """Check that a standard stream is open, before the command does anything.

    Raises:
        ClickException: `stream` ("stdin" or "stdout") is closed.
    """
    if stream in standard.closed:
        sign = "<" if stream == "stdin" else ">"
        raise click.ClickException(f"{stream} is closed: nothing was done; to run without it write {sign} /dev/null")


class NoteHandler(logging.Handler):
    """Shows log records as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        note(record.getMessage())


def write(data: bytes) -> None:
    """Write to stdout; return once the operating system has the data."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show_json(value: Row) -> None:
    """Print one object on one line."""
    # A name of a file that is not UTF-8 has surrogates: in JSON they are written as \udc80.
    write(json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace") + b"\n")


def show_result(value: Row, sentence: str, as_json: bool) -> None:
    """Print the result of a command."""
    if as_json:
        show_json(value)
    else:
        write(sentence.encode(errors="surrogateescape") + b"\n")  # a name of a file may be no UTF-8


def printable(text: str) -> str:
    """Return text with control and invisible characters as escapes, safe for a terminal."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def messages(count: int) -> str:
    """Return a count with its noun, such as "1 message"."""
    return f"{count:,} message{'' if count == 1 else 's'}"


# -- messages and counts as rows --------------------------------------------------------------------------------------


def message_row(message: Message) -> dict[str, Any]:
    """Return the row of a message; `encoding` says how `body` is written."""
    row = {
        "id": message.id,
        "queue": message.queue,
        "attempt": message.attempt,
        "priority": message.priority,
        "headers": message.headers,
        "enqueue_time_ms": message.enqueue_time_ms,
    }
    row |= {name: text for name in ("key", "unique_key") if (text := getattr(message, name))}
    if isinstance(message, PeekedMessage):
        row |= {
            "state": message.state.name.lower(),
            "consumer": message.consumer,
            "state_age_ms": message.state_age_ms,
            "ready_time_ms": message.ready_time_ms,
            "blocked": message.blocked,
        }
    try:
        row |= {"encoding": "utf-8", "body": message.decode()}
    except UnicodeDecodeError:
        row |= {"encoding": "base64", "body": base64.b64encode(message).decode()}
    return row


def counts_row(counts: Counts) -> dict[str, Any]:
    """Return the row of a queue's counts."""
    return dataclasses.asdict(counts)
