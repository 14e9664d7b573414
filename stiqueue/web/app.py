"""The console as an ASGI application: which address shows which page, and what becomes of errors."""

from __future__ import annotations

import logging
from pathlib import Path
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from stiqueue.errors import AccessDenied, InvalidRequest, LimitReached, StiQueueError, Unavailable
from stiqueue.web.access import Closed, LogInNeeded
from stiqueue.web.actions import Actions
from stiqueue.web.console import Console
from stiqueue.web.doors import Doors
from stiqueue.web.governing import Governing
from stiqueue.web.message_screens import MessageScreens
from stiqueue.web.options import WebOptions
from stiqueue.web.safety import Safety
from stiqueue.web.screens import Screens
from stiqueue.web.singles import Singles

STATIC = Path(__file__).parent / "static"
BOTH = ["GET", "POST"]
LOGGER = logging.getLogger("stiqueue.web")

_STATUS: tuple[tuple[type[StiQueueError], int], ...] = (
    (InvalidRequest, 400),
    (AccessDenied, 403),
    (LimitReached, 429),
    (Unavailable, 503),
)


class App:
    """One console: the application, and its end."""

    def __init__(self, options: WebOptions) -> None:
        """Make the console of `options`; nothing is asked before somebody comes."""
        self._console = Console(options)
        self._actions = Actions(self._console)
        self.asgi: ASGIApp = Safety(self._routes(), options)

    async def close(self) -> None:
        """End what is watched and done, and close all connections to the server."""
        await self._actions.close()
        await self._console.access.close()

    def _routes(self) -> Starlette:
        screens, messages = Screens(self._console), MessageScreens(self._console)
        doors, actions = Doors(self._console), self._actions
        singles, governing = Singles(self._console), Governing(self._console)
        return Starlette(
            routes=[
                Route("/", screens.overview),
                Route("/live", screens.overview_live),
                Route("/status", self._status),
                Route("/status/live", screens.status_live),
                Route("/leases", screens.leases),
                Route("/alerts", screens.alerts),
                Route("/alerts/live", screens.alerts_live),
                Route("/queues/{queue}", screens.queue),
                Route("/queues/{queue}/live", screens.queue_live),
                Route("/queues/{queue}/messages/{id}", messages.message),
                Route("/queues/{queue}/messages/{id}/body", messages.body),
                Route("/queues/{queue}/messages/{id}/edit", singles.edit, methods=BOTH),
                Route("/queues/{queue}/messages/{id}/{deed}", singles.act, methods=BOTH),
                Route("/queues/{queue}/selected", singles.act_on_selected, methods=["POST"]),
                Route("/queues/{queue}/pause", governing.pause, methods=BOTH),
                Route("/queues/{queue}/resume", governing.resume, methods=BOTH),
                Route("/queues/{queue}/settings", governing.settings, methods=BOTH),
                Route("/queues/{queue}/enqueue", actions.enqueue, methods=BOTH),
                Route("/queues/{queue}/purge", actions.purge, methods=BOTH),
                Route("/queues/{queue}/redrive", actions.redrive, methods=BOTH),
                Route("/enqueue", actions.choose),
                Route("/login", doors.log_in, methods=BOTH),
                Route("/logout", doors.log_out, methods=["POST"]),
                Route("/healthz", _healthy),
                Mount("/static", StaticFiles(directory=STATIC)),
            ],
            exception_handlers={
                404: self._not_found,
                LogInNeeded: self._log_in_needed,
                Closed: self._closed,
                ClientDisconnect: _gone,
                StiQueueError: self._failed,
                Exception: self._defect,
            },
        )

    async def _status(self, request: Request) -> Response:
        """Tell a watched page that was cut off whether it is still logged in."""
        await self._console.enter(request)
        return Response(status_code=204)

    async def _not_found(self, request: Request, _: Exception) -> Response:
        return self._problem(request, 404, "There is no such page", "Perhaps the address was cut.")

    async def _log_in_needed(self, request: Request, _: Exception) -> Response:
        if request.method != "GET" or request.url.path.endswith(("/live", "/status")):
            return PlainTextResponse("Log in first.\n", 401)
        way = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return self._console.go(f"/login?{urlencode({'next': way})}" if way != "/" else "/login")

    async def _closed(self, request: Request, _: Exception) -> Response:
        text = (
            "The server asks for no token, so everyone who reaches this console could read and drop messages. Give the "
            "server --tokens, or start the console with --web-open, or let it listen on 127.0.0.1 only."
        )
        return self._problem(request, 403, "This console is closed", text)

    async def _failed(self, request: Request, error: Exception) -> Response:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 502)
        title = "The server does not answer" if isinstance(error, Unavailable) else "That did not work"
        return self._problem(request, status, title, str(error))

    async def _defect(self, request: Request, error: Exception) -> Response:
        LOGGER.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return self._problem(request, 500, "The console failed", "Its log says more.")

    def _problem(self, request: Request, status: int, title: str, text: str) -> Response:
        return self._console.page("problem.html", request, None, status, title=title, text=text, retries=status == 503)


async def _healthy(_: Request) -> Response:
    """Tell an orchestrator that the console runs; the server is not asked."""
    return PlainTextResponse("ok\n")


async def _gone(_: Request, __: Exception) -> Response:
    """Answer nobody: a browser went away in the middle of a form, or took too long to send it."""
    return PlainTextResponse("", 400)
