"""Logging in and out."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from stiqueue.errors import AccessDenied, InvalidRequest, LimitReached, Unauthenticated
from stiqueue.web.access import LogInNeeded
from stiqueue.web.console import Console, field_of, form_of

MOST_TOKEN = 4_096
MOST_FORM_BYTES = 64 << 10
"""A larger form has no token that counts, and reading it would hold up everybody."""


class Doors:
    """Lets people in and out."""

    def __init__(self, console: Console) -> None:
        """Guard `console`."""
        self._console = console

    async def log_in(self, request: Request) -> Response:
        """Ask for a token, and begin a session with it."""
        way = _way(request.query_params.get("next", ""))
        if request.method != "POST":
            return await self._ask(request, way)
        try:
            is_large = int(request.headers.get("content-length", "0")) > MOST_FORM_BYTES
            token = "" if is_large else field_of(await form_of(request), "token").strip()
        except ValueError:
            token = ""
        if not token or len(token) > MOST_TOKEN:
            return self._form(request, way, "Type a token.", 400)
        address = request.client.host if request.client else ""
        try:
            session = await self._console.access.log_in(token, address)
        except Unauthenticated:
            return self._form(request, way, "The server does not know this token.", 403)
        except AccessDenied:
            return self._form(request, way, "This token may not look at queues; it needs the right peek.", 403)
        except InvalidRequest as error:
            return self._form(request, way, str(error), 400)
        except LimitReached as error:
            return self._form(request, way, f"There are {error}.".replace("There are too", "Too"), 429)
        response = self._console.go(way)
        self._console.log_in(response, session)
        return response

    async def _ask(self, request: Request, way: str) -> Response:
        try:
            await self._console.enter(request)
        except LogInNeeded:
            return self._form(request, way)
        return self._console.go(way)  # logged in already, or no need to be

    def _form(self, request: Request, way: str, problem: str = "", status: int = 200) -> Response:
        return self._console.page("login.html", request, None, status, way=way, problem=problem)

    async def log_out(self, request: Request) -> Response:
        """End the session."""
        session = self._console.access.sessions.find(request.cookies.get(self._console.cookie_name, ""))
        if session is not None:
            await self._console.access.log_out(session)
        response = self._console.go("/login")
        self._console.log_out(response)
        return response


def _way(text: str) -> str:
    """Return the page to show after the log-in: only one of ours."""
    ours = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and len(text) < 2_000
    return text if ours and not text.startswith("/login") else "/"
