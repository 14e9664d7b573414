"""What clients write down, and how it is read back.

One line an event, one file a writer:

    t client op value outcome [fact=text ...]

`t` is in nanoseconds of the machine's monotonic clock, which all processes share. A line is written *before* a call
(``invoke``) and another after it, straight to the file: what a killed process did is known up to its last instruction.

| op | value | outcome | facts |
|---|---|---|---|
| ``enq`` | the message | ``invoke``, then ``ok``, ``fail`` (surely refused) or ``unknown`` | ``rid``: 1 with an id |
| ``deq`` | the message | ``ok``: received, and not acknowledged yet | ``queue id lease attempt stream`` |
| ``ack`` ``nack`` | the message | ``invoke``, then ``ok``, ``stale`` or ``unknown`` | ``lease`` |
| ``stream`` | its name | ``open``, ``end`` (before it is cancelled) | ``via ack_timeout no_ack reopens``; ``how`` |
| ``fault`` | who suffers | ``invoke``, ``ok`` (seen to have taken effect), ``healed`` | ``kind`` |
| ``drain`` | the queue | ``ok``, ``fail`` | |

A message's value is ``producer-counter``; its body carries the value and a checksum.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from urllib.parse import quote, unquote

SUFFIX = ".history"
"""What the name of a recorded file ends with."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a history."""

    t: int
    """Nanoseconds of the machine's monotonic clock."""
    client: str
    op: str
    value: str
    outcome: str
    facts: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, line: str) -> Event:
        """Return the event that `line` describes."""
        t, client, op, value, outcome, *facts = line.split()
        pairs = (fact.partition("=") for fact in facts)
        return cls(
            int(t),
            client,
            op,
            value,
            outcome,
            {name: unquote(text) if "%" in text else text for name, _, text in pairs},
        )


class Recorder:
    """Appends the events of one client to its own file. Thread-safe: each call is one append of the system."""

    def __init__(self, directory: Path, client: str) -> None:
        """Write to ``<directory>/<client>.history``."""
        self.client = client
        self._file = os.open(directory / f"{client}{SUFFIX}", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, op: str, value: str, outcome: str, **facts: object) -> int:
        """Write one event down and return its time."""
        return self.write_all(op, [(value, facts)], outcome)

    def write_all(self, op: str, values: Iterable[tuple[str, Mapping[str, object]]], outcome: str) -> int:
        """Write events of the same time down with one append: a batch is one call, so it happens at one time."""
        t = time.monotonic_ns()
        lines = [
            " ".join(
                [str(t), self.client, op, value, outcome, *(f"{name}={_word(fact)}" for name, fact in facts.items())]
            )
            for value, facts in values
        ]
        os.write(self._file, "".join(f"{line}\n" for line in lines).encode())
        return t

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Recorder:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()


def _word(fact: object) -> str:
    """Return a fact's text without white space."""
    text = str(fact)
    return text if text.isalnum() else quote(text, safe="/:")


def read_history(directory: Path, client: str = "*") -> list[Event]:
    """Return every event recorded in `directory` (or by one client), by time.

    A last line without its end is what a killed writer leaves and is passed over; any other line must be whole.
    """
    events: list[Event] = []
    for path in sorted(directory.glob(f"{client}{SUFFIX}")):
        *lines, _torn = path.read_text().split("\n")
        events.extend(map(Event.parse, lines))
    events.sort(key=lambda event: event.t)
    return events


def make_body(value: str, size: int = 0) -> bytes:
    """Return a body that says which message it is and proves it, padded to `size` bytes."""
    padding = b"." * max(0, size - len(value) - 10)
    return b"%b %08x %b" % (value.encode(), zlib.crc32(value.encode() + padding), padding)


def read_body(body: bytes) -> str:
    """Return the value in `body`, or a word with ``!`` when the body is not one that `make_body` made."""
    value, _, rest = body.partition(b" ")
    checksum, _, padding = rest.partition(b" ")
    if checksum == b"%08x" % zlib.crc32(value + padding):
        return value.decode()
    return f"!{zlib.crc32(body):08x}/{len(body)}"


def producer_and_counter(value: str) -> tuple[str, int]:
    """Return who sent the message, and which of its messages it is."""
    producer, _, counter = value.rpartition("-")
    return producer, int(counter)
