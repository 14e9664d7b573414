"""Templates and what they may call. Everything that is put into a page is escaped, and nothing in it is hidden."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from stiqueue._version import __version__
from stiqueue.message import DEAD_SUFFIX
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web import bodies, units
from stiqueue.web.charts import Line, sparkline
from stiqueue.web.history import Trend

STATES: dict[int, str] = {
    pb.MESSAGE_STATE_READY: "ready",
    pb.MESSAGE_STATE_LEASED: "leased",
    pb.MESSAGE_STATE_DELAYED: "delayed",
}
AROUND = "~"
"""Stands before a queue's name that a browser would take for a way up: no name begins with it."""


def queue_path(queue: str, *rest: object, **query: object) -> str:
    """Return the address of a queue's page, or of a page below it; an empty value leaves a query out."""
    segment = AROUND + queue if queue in (".", "..") else queue
    path = "/".join(["/queues", segment, *map(str, rest)])
    given = {name.rstrip("_"): value for name, value in query.items() if value not in ("", None, False)}
    return f"{path}?{urlencode(given)}" if given else path


def queue_of(segment: str) -> str:
    """Return the queue that a segment of a path means."""
    return segment.removeprefix(AROUND)


def _trend(trend: Trend) -> Markup:
    return sparkline(
        [Line("in", "in", trend.enqueued), Line("acked", "acked", trend.acked)], "messages in and acked, last minutes"
    )


def _shown(value: Any) -> Any:
    """Make hidden characters visible, except in fields of forms: ``|e`` leaves those as they were typed."""
    return bodies.visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("stiqueue.web"),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters |= {
        "number": units.number,
        "rate": units.rate,
        "duration": units.duration,
        "age": units.age,
        "size": units.size,
        "clock": units.clock,
        "line": bodies.line,
        "trend": _trend,
        "state": lambda state: STATES.get(state, "unknown"),
    }
    environment.globals |= {
        "queue_path": queue_path,
        "version": __version__,
        "DEAD_SUFFIX": DEAD_SUFFIX,
        "origin": bodies.origin,
    }
    return environment


_TEMPLATES = _environment()


def render(template: str, **values: Any) -> Markup:
    """Return a template with `values`, which it escapes."""
    return Markup(_TEMPLATES.get_template(template).render(values))
