"""``stiqueue export`` and ``import``: messages in a file, while the server serves."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import click

from stiqueue.cli.meter import Meter
from stiqueue.cli.options import Target, as_json, target
from stiqueue.cli.output import messages as words
from stiqueue.cli.output import note, show_result
from stiqueue.cli.records import Group, groups, line_of
from stiqueue.cli.signals import last_words
from stiqueue.errors import InvalidRequest, StiQueueError
from stiqueue.limits import queue_name
from stiqueue.sqclient import SQClient
from stiqueue.transfer import copied, put

STANDARD = "-"
"""Instead of a file: stdin or stdout."""
STEP = 1_000
"""After how many messages the progress is shown."""


def _names(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(queue_name, values)))
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("-q", "--queue", "names", multiple=True, callback=_names, metavar="NAME", help="Only this; repeatable.")
@target(queue=False)
@as_json
def export(target: Target, file: str, names: tuple[str, ...], as_json: bool) -> None:
    r"""Copy the messages of all queues into FILE (-: stdout), while the server serves; nothing is taken.

    One JSON object a line, in the order of delivery, with what `import` needs to enqueue them again: body (as base64),
    headers, priority, when a delay ends and a ttl runs out. Leased messages are among them, for they are not done. FILE
    is replaced once the copy is complete and on the disk; until then it is called FILE.part.

    \b
    Examples:
      stiqueue export backup.jsonl
      stiqueue export --queue mail - | gzip > mail.jsonl.gz
    """
    with target.client() as client:
        counts = client.queues()
        names = names or tuple(counts)
        known = [counts[name] for name in names if name in counts]
        total = sum(each.ready + each.leased + each.delayed for each in known)
        with Meter("exporting", total) as meter, _written(file) as out, last_words(lambda: "the export is incomplete"):
            for name in names:
                _export(client, name, out, meter)
    sentence = f"exported {words(meter.messages)} of {len(names):,} queue{'' if len(names) == 1 else 's'}"
    if file == STANDARD:
        note(sentence)
    else:
        show_result({"file": file, "count": meter.messages, "queues": list(names)}, f"{sentence} to {file}", as_json)


def _export(client: SQClient, queue: str, out: BinaryIO, meter: Meter) -> None:
    waiting = 0
    for message in copied(client, queue):
        out.write(line_of(message))
        waiting += 1
        if waiting == STEP:
            meter.add(waiting)
            waiting = 0
    meter.add(waiting)


@contextlib.contextmanager
def _written(file: str) -> Iterator[BinaryIO]:
    """Yield what is to be written to; a file appears when all of it is on the disk. Only its owner can read it."""
    if file == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = f"{file}.part"
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, file)


@click.command("import")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, dir_okay=False))
@target(queue=False)
@as_json
def import_(target: Target, file: str, as_json: bool) -> None:
    r"""Enqueue the messages of FILE (-: stdin), which `export` made.

    They are new messages: with new ids, at the end of their queues, no attempt made yet, enqueued now. Delays and ttls
    go on as if nothing had happened; what has expired meanwhile is left out. Repeated within 5 minutes, it enqueues
    nothing twice: that is how to go on after an error, or behind the lines that it says are done.

    \b
    Examples:
      stiqueue import backup.jsonl
      tail -n +5001 backup.jsonl | stiqueue import -
    """
    size = None if file == STANDARD else os.path.getsize(file)
    with target.client() as client, Meter("importing", size) as meter:
        done = _Import(client, meter)
        with click.open_file(file, "rb") as lines, last_words(lambda: f"stopped {done.told}"):
            done.run(lines)
    value = {"count": done.enqueued, "repeated": done.repeated, "expired": done.expired}
    sentence = f"imported {words(done.enqueued)}"
    if done.repeated:
        sentence += f", {done.repeated:,} had been imported before"
    if done.expired:
        sentence += f", {done.expired:,} had expired"
    show_result(value, sentence, as_json)


class _Import:
    """One import, and how far it has come."""

    def __init__(self, client: SQClient, meter: Meter) -> None:
        self.enqueued = self.repeated = self.expired = self.lines = 0
        self._client = client
        self._meter = meter

    @property
    def told(self) -> str:
        return f"with the first {self.lines:,} line{'' if self.lines == 1 else 's'} done"

    def run(self, lines: Iterable[bytes]) -> None:
        try:
            for group in groups(lines):
                self._put(group)
        except StiQueueError as error:
            raise type(error)(f"{error}; {self.told}", error.reason) from error

    def _put(self, group: Group) -> None:
        batch = group.batch(int(time.time() * 1000))
        number = len(group.records)
        if batch is None:
            self.expired += number
        else:
            try:
                receipt = put(self._client, batch)
            except InvalidRequest as error:
                if error.reason != "MESSAGE_TOO_LARGE" or number == 1:
                    raise
                for half in group.halves():  # this server takes smaller requests than others
                    self._put(half)
                return
            if receipt.duplicate:
                self.repeated += number
            else:
                self.enqueued += number
        self.lines = group.lines
        self._meter.add(number, group.bytes)
