"""The settings of a queue, and its pause: what `AdminService` has, for tokens with the right ``admin``."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.errors import StiQueueError
from stiqueue.limits import dead_letter_queue
from stiqueue.queue_settings import nought
from stiqueue.web.addresses import counts_of, queue_in
from stiqueue.web.console import Console, Visit, field_of
from stiqueue.web.forms import Fields, fields_of, seconds_of, whole_of
from stiqueue.web.rendering import queue_path
from stiqueue.web.units import duration, number, size

WHOLE = {"max_attempts", "max_messages", "max_bytes", "max_leased"}
SECONDS = {"ack_timeout", "ttl"}
SHOWN = (
    ("max_attempts", "Attempts", "deliveries before a message becomes a dead letter; 0: no limit"),
    ("max_messages", "Messages", "the most in the queue; 0: no limit"),
    ("max_bytes", "Bytes", "the most of bodies and headers; 0: no limit"),
    ("max_leased", "Leased", "the most that all consumers together hold; 0: no limit"),
    ("ack_timeout", "Ack timeout", "after which a message is given back, such as 5m; 0: never"),
    ("ttl", "Time to live", "of messages without one, such as 7d; 0: for ever"),
    ("dead_letter_queue", "Dead letters in", "a queue whose name ends with .dead"),
)
"""Settings in the order of the form: name, label, hint."""


class Governing:
    """Answers forms about a queue as a whole."""

    def __init__(self, console: Console) -> None:
        """Act for `console`."""
        self._console = console

    async def pause(self, request: Request) -> Response:
        """Pause a queue, for a time or until it is resumed."""
        visit = await self._console.enter(request)
        queue, problem = queue_in(request), ""
        await visit.watch.look()
        if request.method == "POST":
            text = field_of(await fields_of(request), "seconds").strip()
            try:
                seconds = seconds_of("for", text) if text else None
                await visit.link.client.pause(seconds, queue=queue)
                until = f"for {duration(seconds)}" if seconds else "until it is resumed"
                return self._console.go(queue_path(queue), f"{queue} is paused {until}.")
            except StiQueueError as error:
                problem = str(error)
        return self._page("pause.html", visit, queue, problem)

    async def resume(self, request: Request) -> Response:
        """Resume a queue."""
        visit = await self._console.enter(request)
        queue, problem = queue_in(request), ""
        await visit.watch.look()
        if request.method == "POST":
            try:
                if await visit.link.client.resume(queue=queue):
                    return self._console.go(queue_path(queue), f"{queue} delivers again.")
                problem = f"A pattern that matches {queue} pauses it still; resume that pattern."
            except StiQueueError as error:
                problem = str(error)
        return self._page("resume.html", visit, queue, problem)

    async def settings(self, request: Request) -> Response:
        """Show and change the settings of a queue."""
        visit = await self._console.enter(request)
        queue, problem, fields = queue_in(request), "", {}
        if request.method == "POST":
            fields = await fields_of(request)
            try:
                change = _changes(fields)
                await visit.link.client.configure(queue=queue, **change)
                return self._console.go(queue_path(queue, "settings"), f"The settings of {queue} are changed.")
            except StiQueueError as error:
                problem = str(error)
        effective = await visit.link.client.settings(queue=queue)
        report = await visit.link.client.all_settings()
        own = next((each for each in report.settings if each.queue == queue), None)
        fixed = next((each for each in report.fixed if each.queue == queue), None)
        rows = [
            {
                "name": name,
                "label": label,
                "hint": hint,
                "effective": written(name, getattr(effective, name)) or dead_letter_queue(queue),
                "own": field_of(fields, name) if fields else typed(name, getattr(own, name, None)),
                "is_fixed": getattr(fixed, name, None) is not None,
            }
            for name, label, hint in SHOWN
        ]
        return self._page("settings.html", visit, queue, problem, rows=rows)

    def _page(self, template: str, visit: Visit, queue: str, problem: str, **values: Any) -> Response:
        return self._console.page(
            template,
            visit.request,
            visit,
            400 if problem else 200,
            queue=queue,
            counts=counts_of(visit, queue),
            problem=problem,
            **values,
        )


def _changes(fields: Fields) -> dict[str, Any]:
    """Return what to change: an empty field is a setting that is set no longer."""
    change: dict[str, Any] = {}
    reset = []
    for name, _, _ in SHOWN:
        if name not in fields:
            continue
        text = field_of(fields, name).strip()
        if not text:
            reset.append(name)
        elif name in WHOLE:
            change[name] = whole_of(name, text)
        else:
            change[name] = seconds_of(name, text) if name in SECONDS else text
    return change | {"reset": reset}


def written(name: str, value: Any) -> str:
    """Return a value as people read it."""
    if name == "dead_letter_queue":
        return str(value)
    if not value:
        return nought(name)
    if name in SECONDS:
        return duration(value)
    return size(value) if name == "max_bytes" else number(value)


def typed(name: str, value: Any) -> str:
    """Return a value as it can be typed; empty: it is not set."""
    if value is None:
        return ""
    return f"{int(value) if value == int(value) else value}s" if name in SECONDS else str(value)
