"""``stiqueue export`` and ``import``: messages to and from a file, while the server runs."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import click

from stiqueue.cli.meter import Meter
from stiqueue.cli.options import Target, as_json, flat, target
from stiqueue.cli.output import messages as words
from stiqueue.cli.output import need, note, show_result
from stiqueue.cli.records import Group, groups, line_of
from stiqueue.cli.signals import last_words
from stiqueue.client.copy import copied, put
from stiqueue.errors import InvalidRequest, StiQueueError
from stiqueue.limits import queue_name
from stiqueue.sqclient import SQClient

STANDARD = "-"
"""A file argument that means stdin or stdout."""
STEP = 1_000
"""Messages between two updates of the progress bar."""


def _names(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(dict.fromkeys(map(queue_name, values)))
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


@click.command("export")
@click.argument("file", type=click.Path(dir_okay=False))
@click.option(
    "-q", "--queue", "names", multiple=True, callback=_names, metavar="NAME", help="Only this queue; repeatable."
)
@target(queue=False)
@as_json
def export(target: Target, file: str, names: tuple[str, ...], as_json: bool) -> None:
    r"""Copy all messages to FILE (-: stdout), taking none.

    The server may keep running. Writes one JSON object per line, in the order of delivery, with everything that
    `import` needs: body (as base64), headers, priority, and the ends of delay and ttl. Includes leased messages,
    because they are not done. Writes FILE.part and renames it to FILE once the copy is complete and on the disk. If
    FILE is a symbolic link, replaces its target; writes to a pipe or a device directly.

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
    """Yield the stream to write to. A regular file appears once it is complete and on the disk, readable by its owner.

    Follows symbolic links and replaces only a regular file. Writes to a pipe or a device directly.

    Raises:
        ClickException: the file is none of these.
    """
    if file == STANDARD:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    place = os.path.realpath(file)
    if _is_stream(file, place):
        with open(file, "wb") as out:
            yield out
        return
    part = f"{place}.part"
    if os.path.lexists(part):  # left by an export that was killed
        if not stat.S_ISREG(os.lstat(part).st_mode):
            raise click.ClickException(f"{part}: is in the way, and not a regular file")
        os.unlink(part)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        yield out
        out.flush()
        os.fsync(out.fileno())
    os.replace(part, place)


def _is_stream(file: str, place: str) -> bool:
    """Return whether to write to `file`, which resolves to `place`, directly; False: it is or will be a regular file.

    Raises:
        ClickException: it is something else, such as a disk.
    """
    try:
        status = os.stat(file)
    except FileNotFoundError:
        return False
    if stat.S_ISREG(status.st_mode):
        # A name such as /dev/fd/3 resolves to an open file that may have been renamed or removed.
        return not (os.path.exists(place) and os.path.samestat(status, os.stat(place)))
    if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
        return True
    raise click.ClickException(f"{file}: is neither a regular file nor a pipe or a terminal")


@click.command("import")
@click.argument("file", type=click.Path(exists=True, allow_dash=True, dir_okay=False))
@flat
@target(queue=False)
@as_json
def import_(target: Target, file: str, flat: bool, as_json: bool) -> None:
    r"""Enqueue the messages of FILE (-: stdin), written by `export`.

    They become new messages: new ids, at the end of their queues, no attempts, enqueued now. Delays and ttls end at the
    same times as before; expired messages are left out. Repeated within 5 minutes, it enqueues nothing twice: so after
    an error run it again, or continue after the lines that it reported as done.

    \b
    Examples:
      stiqueue import backup.jsonl
      tail -n +5001 backup.jsonl | stiqueue import -
    """
    if file == STANDARD:
        need("stdin")
    size = None if file == STANDARD else os.path.getsize(file)
    with target.client() as client, Meter("importing", size) as meter:
        done = _Import(client, meter, flat)
        with click.open_file(file, "rb") as lines, last_words(lambda: f"stopped {done.told}"):
            done.run(lines)
    value = {"count": done.enqueued, "repeated": done.repeated, "taken": done.taken, "expired": done.expired}
    sentence = f"imported {words(done.enqueued)}"
    if done.repeated:
        sentence += f", {done.repeated:,} had been imported before"
    if done.taken:
        sentence += f", {done.taken:,} left out because their unique keys are taken"
    if done.expired:
        sentence += f", {done.expired:,} had expired"
    show_result(value, sentence, as_json)


class _Import:
    """One import and its progress."""

    def __init__(self, client: SQClient, meter: Meter, flat: bool) -> None:
        self.enqueued = self.repeated = self.taken = self.expired = self.lines = 0
        self._client = client
        self._meter = meter
        self._flat = flat

    @property
    def told(self) -> str:
        return f"with the first {self.lines:,} line{'' if self.lines == 1 else 's'} done"

    def run(self, lines: Iterable[bytes]) -> None:
        try:
            for group in groups(lines):
                self._put(group)
        except StiQueueError as error:
            raise error.told_as(f"{error}; {self.told}", self.lines > 0) from error

    def _put(self, group: Group) -> None:
        batch = group.batch(int(time.time() * 1000))
        number = len(group.records)
        if batch is None:
            self.expired += number
        else:
            try:
                receipt = put(self._client, batch, self._flat)
            except InvalidRequest as error:
                if error.reason != "MESSAGE_TOO_LARGE" or not error.is_refusal or number == 1:
                    raise
                for half in group.halves():  # this server accepts only smaller requests
                    self._put(half)
                return
            if receipt.duplicate and batch.unique_key:  # the server does not tell which of the two it is
                self.taken += number
            elif receipt.duplicate:
                self.repeated += number
            else:
                self.enqueued += number
        self.lines = group.lines
        self._meter.add(number, group.bytes)
