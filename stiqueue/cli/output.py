"""What the command prints: for people on a terminal, plain lines elsewhere, JSON for scripts.

Results go to stdout; notes, questions and progress to stderr. Whatever comes from messages is made harmless before a
terminal sees it, except by `deq` and `consume`, whose output is the message.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import sys
from collections.abc import Mapping
from typing import Any

import click

from stiqueue.message import Counts, Message, PeekedMessage

Row = Mapping[str, Any]


def on_terminal() -> bool:
    """Whether people read the output."""
    return sys.stdout.isatty()


def note(text: str) -> None:
    """Tell people something in one line on stderr."""
    sign = click.style("stiqueue:", fg="yellow") if sys.stderr.isatty() else "stiqueue:"
    click.echo(f"{sign} {' '.join(printable(line) for line in text.split())}", err=True)


class NoteHandler(logging.Handler):
    """Shows log records as notes."""

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        note(record.getMessage())


def write(data: bytes) -> None:
    """Write to stdout; return once the operating system has it."""
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def show_json(value: Row) -> None:
    """Print one object on one line."""
    write(json.dumps(value, ensure_ascii=False).encode() + b"\n")


def show_result(value: Row, sentence: str, as_json: bool) -> None:
    """Print what a command did."""
    if as_json:
        show_json(value)
    else:
        write(sentence.encode() + b"\n")


def printable(text: str) -> str:
    """Return text without anything that a terminal would obey or hide: such characters as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def messages(count: int) -> str:
    """Return a number of messages in words."""
    return f"{count:,} message{'' if count == 1 else 's'}"


# -- messages and counts as rows --------------------------------------------------------------------------------------


def message_row(message: Message) -> dict[str, Any]:
    """Return what there is to say about a message; `encoding` tells how `body` is written."""
    row = {
        "id": message.id,
        "queue": message.queue,
        "attempt": message.attempt,
        "priority": message.priority,
        "headers": message.headers,
        "enqueue_time_ms": message.enqueue_time_ms,
    }
    if isinstance(message, PeekedMessage):
        row |= {
            "state": message.state.name.lower(),
            "consumer": message.consumer,
            "state_age_ms": message.state_age_ms,
            "ready_time_ms": message.ready_time_ms,
        }
    try:
        row |= {"encoding": "utf-8", "body": message.decode()}
    except UnicodeDecodeError:
        row |= {"encoding": "base64", "body": base64.b64encode(message).decode()}
    return row


def counts_row(counts: Counts) -> dict[str, Any]:
    """Return the counts of a queue."""
    return dataclasses.asdict(counts)
