"""What all pages share: the options, who is let in, and how a page is answered."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from stiqueue.web.access import Access
from stiqueue.web.link import Link, Rights
from stiqueue.web.options import WebOptions
from stiqueue.web.rendering import render
from stiqueue.web.sessions import Place, Sayings, Session
from stiqueue.web.watch import Watch

THEMES = ("dark", "light")
MOST_FIELDS = 2_000
"""Fields of a form: a page of selected messages and its buttons."""


@dataclass(frozen=True)
class Visit:
    """One request, and as whom it acts."""

    request: Request
    place: Place
    session: Session | None

    @property
    def watch(self) -> Watch:
        """The counts of the server."""
        return self.place.watch

    @property
    def link(self) -> Link:
        """The connection to the server."""
        return self.place.link

    @property
    def rights(self) -> Rights:
        """What may be offered."""
        return self.place.rights

    def ask(self, name: str, default: str = "") -> str:
        """Return a query parameter."""
        return self.request.query_params.get(name, default)


class Console:
    """One console. For one event loop."""

    def __init__(self, options: WebOptions) -> None:
        """Show the server of `options`."""
        self.options = options
        self.access = Access(options)
        self.sayings = Sayings()

    @property
    def cookie_name(self) -> str:
        """The name of the session's cookie; browsers take the longer one by HTTPS only."""
        return "__Host-stiqueue" if self.options.is_encrypted else "stiqueue"

    async def enter(self, request: Request) -> Visit:
        """Return as whom a request acts. Raises as `Access.place`."""
        return Visit(request, *await self.access.place(request.cookies.get(self.cookie_name, "")))

    def page(
        self, template: str, request: Request, visit: Visit | None = None, status: int = 200, **values: Any
    ) -> Response:
        """Answer with a page."""
        theme = request.cookies.get("theme", "")
        said = request.query_params.get("said", "")
        watch = None if visit is None else visit.watch
        text = render(
            template,
            theme=theme if theme in THEMES else "",
            server=self.options.server,
            said=self.sayings.take(said) if said else None,
            path=request.url.path,
            logged_in=visit is not None and visit.session is not None,
            rights=None if visit is None else visit.rights,
            watch=watch,
            firing=0 if watch is None else sum(alert.is_firing for alert in watch.alerts),
            **values,
        )
        return HTMLResponse(text, status)

    def go(self, path: str, said: str = "", is_good: bool = True) -> Response:
        """Answer with the way to a page, which shows what is `said`."""
        if said:
            path += ("&" if "?" in path else "?") + urlencode({"said": self.sayings.keep(said, is_good)})
        return RedirectResponse(path, 303)

    def log_in(self, response: Response, session: Session) -> None:
        """Give a browser the session's cookie."""
        response.set_cookie(
            self.cookie_name, session.id, path="/", httponly=True, samesite="strict", secure=self.options.is_encrypted
        )

    def log_out(self, response: Response) -> None:
        """Take the cookie back."""
        response.delete_cookie(
            self.cookie_name, path="/", httponly=True, samesite="strict", secure=self.options.is_encrypted
        )


async def form_of(request: Request) -> dict[str, list[str]]:
    """Return the fields of a form; its size is checked before, see `stiqueue.web.safety`.

    Raises:
        ValueError: it is not a form, or has too many fields.
    """
    text = (await request.body()).decode()
    fields: dict[str, list[str]] = {}
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=MOST_FIELDS):
        fields.setdefault(name, []).append(value)
    return fields


def field_of(fields: dict[str, list[str]], name: str) -> str:
    """Return the first value of a field; empty if it is missing."""
    return fields.get(name, [""])[0]
