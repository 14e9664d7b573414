"""Pages that change while somebody looks: server-sent events with the parts that are new."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing
from typing import Any

from starlette.responses import PlainTextResponse, Response, StreamingResponse

from stiqueue.web.console import Console, Visit
from stiqueue.web.rendering import render

MOST_STREAMS = 300
"""Most pages that are watched at a time; a further one has to be reloaded by hand."""

Parts = Mapping[str, str]
"""Parts of a page as HTML, by the id of the element that has them."""


class Live:
    """Sends watched pages what has changed. For one event loop."""

    def __init__(self, console: Console) -> None:
        """Serve pages of `console`."""
        self._console = console
        self._open = 0

    def answer(self, visit: Visit, parts: Callable[[], tuple[Parts, Parts | None]]) -> Response:
        """Answer with a stream of the `parts` that have changed, for as long as the browser listens.

        Args:
            visit: who watches.
            parts: returns the parts of the page, and the rows of its table in their order; None where it has no table.
        """
        if self._open >= MOST_STREAMS:
            return PlainTextResponse("Too many pages are watched.\n", 503)
        kind, headers = "text/event-stream", {"cache-control": "no-store", "x-accel-buffering": "no"}
        if visit.request.method == "HEAD":
            return Response(None, media_type=kind, headers=headers)
        return StreamingResponse(self._events(visit, parts), media_type=kind, headers=headers)

    async def _events(self, visit: Visit, parts: Callable[[], tuple[Parts, Parts | None]]) -> AsyncIterator[str]:
        self._open += 1
        seen: dict[str, str] = {}
        try:
            async with aclosing(visit.watch.ticks()) as ticks:
                async for _ in ticks:
                    if self._has_ended(visit):
                        yield "event: end\ndata: {}\n\n"
                        return
                    yield _event(seen, *parts(), status(visit))
        finally:
            self._open -= 1

    def _has_ended(self, visit: Visit) -> bool:
        if visit.watch.is_locked_out:
            return True
        return visit.session is not None and self._console.access.sessions.find(visit.session.id) is None


def status(visit: Visit) -> Parts:
    """Return the parts that every page has: whether the server answers, and how many alerts there are."""
    firing = sum(alert.is_firing for alert in visit.watch.alerts)
    return {
        "status": render("_status.html", watch=visit.watch),
        "alert-count": render("_alert_count.html", firing=firing),
    }


def _event(seen: dict[str, str], parts: Parts, rows: Parts | None, always: Parts) -> str:
    """Return the event that tells what is new since `seen`, which is brought up to date."""
    parts = {**parts, **always}
    told: dict[str, Any] = {"parts": {name: html for name, html in parts.items() if seen.get(name) != html}}
    now: dict[str, str] = {**parts, **(rows or {})}
    if rows is not None:
        told["rows"] = {name: html for name, html in rows.items() if seen.get(name) != html}
        told["order"] = list(rows)
    # Rows keep their order in a dictionary, so one that merely moved counts as a change as well.
    is_same = list(seen.items()) == list(now.items())
    seen.clear()
    seen.update(now)
    return ":\n\n" if is_same else f"data: {json.dumps(told, ensure_ascii=False)}\n\n"
