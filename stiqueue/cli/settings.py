"""``stiqueue pause``, ``resume`` and ``settings``: what holds for a queue."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import click

from stiqueue.cli.options import Target, as_json, duration, seconds, target
from stiqueue.cli.output import note, show_json, show_result
from stiqueue.cli.tables import Column, show_rows
from stiqueue.errors import StiQueueError
from stiqueue.limits import MAX_DELAY, check_pattern
from stiqueue.queue_settings import SETTINGS, QueueSettings

DEFAULT = "default"
"""Instead of a value: no longer set."""
COLUMNS = [
    Column("queue", right=False, flexible=True, style=lambda _: "bold"),
    Column("settings", right=False, flexible=True),
    Column("from", right=False),
]


def _pattern(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else check_pattern(value)
    except StiQueueError as error:
        raise click.BadParameter(str(error).removeprefix("queue: ")) from error


def _queue(required: bool = True) -> Callable[[Any], Any]:
    return click.argument("pattern", metavar="QUEUE" if required else "[QUEUE]", required=required, callback=_pattern)


@click.command()
@_queue()
@duration("--for", "pause_seconds", text="Resume by itself after this time.", most=MAX_DELAY, least=0.001)
@target(queue=False)
@as_json
def pause(target: Target, pattern: str, pause_seconds: float | None, as_json: bool) -> None:
    r"""Deliver nothing of a queue until it is resumed.

    Messages still come in, and consumers can settle those that they hold. QUEUE is a name, or a pattern in which *
    stands for any characters.

    \b
    Examples:
      stiqueue pause mail --for 10m
      stiqueue pause 'mail.*'
    """
    with target.client() as client:
        client.pause(pause_seconds, queue=pattern)
    length = "" if pause_seconds is None else f" for {pause_seconds:g} s"
    show_result({"queue": pattern, "paused": True, "seconds": pause_seconds}, f"paused {pattern}{length}", as_json)


@click.command()
@_queue()
@target(queue=False)
@as_json
def resume(target: Target, pattern: str, as_json: bool) -> None:
    """Let a paused queue deliver again.

    QUEUE is what you paused: a name or a pattern.
    """
    with target.client() as client:
        delivers = client.resume(queue=pattern)
    if not delivers:
        note(f"{pattern} is still paused, by a pattern: see `stiqueue settings`")
    if delivers or as_json:
        show_result({"queue": pattern, "paused": not delivers}, f"resumed {pattern}", as_json)


def _or_default(kind: Callable[[str], Any]) -> Callable[[click.Context, click.Parameter, str | None], Any]:
    """Return what reads a value of an option, or the word that resets it."""

    def read(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
        if value is None or value == DEFAULT:
            return value
        try:
            return kind(value)
        except ValueError as error:
            raise click.BadParameter(f"{value!r} is not a whole number, nor {DEFAULT}") from error

    return read


_OPTIONS: tuple[tuple[str, str, Callable[[str], Any], str], ...] = (
    ("--max-attempts", "NUMBER", int, "Deliveries before a message moves to the dead letter queue; 0: no limit."),
    ("--max-messages", "NUMBER", int, "The most messages in the queue; 0: no limit."),
    ("--max-bytes", "NUMBER", int, "The most bytes in the queue; 0: no limit."),
    ("--ack-timeout", "SECONDS", seconds, "When an unsettled message is given back; 0: never."),
    ("--ttl", "SECONDS", seconds, "When a message expires that has no ttl of its own; 0: never."),
    ("--max-leased", "NUMBER", int, "The most messages that all consumers may hold; 0: no limit."),
    ("--dead-letter-queue", "NAME", str, "The queue for dead letters; its name ends with .dead."),
)


def _settings_options(command: Any) -> Any:
    for name, metavar, kind, text in reversed(_OPTIONS):
        command = click.option(name, metavar=metavar, callback=_or_default(kind), help=text)(command)
    return command


@click.command()
@_queue(required=False)
@_settings_options
@target(queue=False)
@as_json
def settings(target: Target, pattern: str | None, as_json: bool, **options: Any) -> None:
    r"""Show or change the settings of queues.

    QUEUE is a name or a pattern in which * stands for any characters. Of several that match a queue, the most specific
    one decides, setting by setting; then the server's options. The value "default" takes a setting back. Without
    QUEUE, lists all settings that were made.

    \b
    Examples:
      stiqueue settings
      stiqueue settings mail
      stiqueue settings 'mail.*' --max-leased 5 --max-attempts default
    """
    changes = {name: value for name, value in options.items() if value is not None}
    if pattern is None and changes:
        raise click.UsageError("name the queue whose settings to change")
    with target.client() as client:
        if pattern is None or ("*" in pattern and not changes):
            report = client.all_settings()
            rows = [(each, "server") for each in report.settings] + [(each, "file") for each in report.fixed]
            _list([(each, source) for each, source in rows if pattern in (None, each.queue)], as_json)
            return
        if changes:
            reset = [name for name, value in changes.items() if value == DEFAULT]
            changed = {name: value for name, value in changes.items() if value != DEFAULT}
            shown = client.configure(queue=pattern, reset=reset, **changed)
        else:
            shown = client.settings(queue=pattern)
    show_result(_row(shown), f"{shown.queue}: {shown}", as_json)


def _list(found: list[tuple[QueueSettings, str]], as_json: bool) -> None:
    if not found:
        note("no settings were made: the server's options hold")
    elif as_json:
        for each, source in found:
            show_json(_row(each) | {"from": source})
    else:
        show_rows(
            COLUMNS, [{"queue": each.queue, "settings": str(each), "from": source} for each, source in found], False
        )


def _row(settings: QueueSettings) -> dict[str, Any]:
    """Return the row of settings: those that are set."""
    row = dataclasses.asdict(settings)
    return {name: row[name] for name in ("queue", "resume_after", *SETTINGS) if row[name] is not None}
