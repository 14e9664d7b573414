"""As whom a request acts: logged in with a token, or as everybody where the server asks for none."""

from __future__ import annotations

import asyncio
import time

from stiqueue.errors import AccessDenied, Unauthenticated
from stiqueue.web.link import Link
from stiqueue.web.options import WebOptions
from stiqueue.web.sessions import Place, Session, Sessions, Slowdown
from stiqueue.web.watch import Watch

KNOWN_SECONDS = 3.0
"""For how long it is remembered that nobody comes in without a token: those who try cost the server nothing then."""


class LogInNeeded(Exception):
    """Raised when a page needs somebody who is logged in."""


class Closed(Exception):
    """Raised when a server without tokens would be open to everybody who reaches the console."""


class Access:
    """Lets people in. For one event loop."""

    def __init__(self, options: WebOptions) -> None:
        """Let in those whom the server of `options` knows."""
        self._options = options
        self.sessions = Sessions()
        self.slowdown = Slowdown()
        self._everybody: Place | None = None
        """The connection of those who need not log in, once it is known that nobody must."""
        self._refusal: type[Exception] = LogInNeeded
        self._refused_until = 0.0
        self._making = asyncio.Lock()
        """Guards `_everybody`: it is made once."""

    async def place(self, cookie: str) -> tuple[Place, Session | None]:
        """Return the connection by which a request acts, and who is logged in.

        Raises:
            LogInNeeded: the server asks for a token.
            Closed: it does not, and the console can be reached from other machines.
            Unavailable: the server does not answer, so that nobody knows.
        """
        session = self.sessions.find(cookie) if cookie else None
        if session is not None:
            if not session.place.watch.is_locked_out:
                return session.place, session
            await self.log_out(session)  # the token was taken back
        return await self._as_everybody(), None

    async def _as_everybody(self) -> Place:
        async with self._making:
            if self._everybody is not None:
                if not self._everybody.watch.is_locked_out:
                    return self._everybody
                await self._everybody.close()
                self._everybody = None
            if time.monotonic() < self._refused_until:
                raise self._refusal
            place = self._new_place(self._options.token)
            try:
                place.rights = await place.link.rights()
            except Unauthenticated:
                await place.close()
                raise self._refused(LogInNeeded) from None
            except BaseException:
                await place.close()
                raise
            if not (self._options.is_local or self._options.web_open):
                await place.close()
                raise self._refused(Closed)
            self._everybody = place
            return place

    def _refused(self, refusal: type[Exception]) -> Exception:
        """Remember and return why nobody comes in without a token."""
        self._refusal, self._refused_until = refusal, time.monotonic() + KNOWN_SECONDS
        return refusal()

    async def log_in(self, token: str, address: str) -> Session:
        """Begin a session with a `token`.

        Raises:
            AccessDenied: the server does not know the token, or it may not look.
            InvalidRequest: it cannot be a token.
            LimitReached: too many log-ins of this address wait.
            Unavailable: the server does not answer.
        """
        await self.slowdown.wait(address)
        place = self.sessions.place_of(token) or self._new_place(token)
        try:
            place.rights = await place.link.rights()
        except AccessDenied:
            self.slowdown.failed(address)
            await self._close_unused(place)
            raise
        except BaseException:
            await self._close_unused(place)
            raise
        self.slowdown.succeeded(address)
        return self.sessions.begin(token, place)

    async def log_out(self, session: Session) -> None:
        """End a session."""
        self.sessions.end(session)
        await self._close_unused(session.place)

    async def _close_unused(self, place: Place) -> None:
        if not self.sessions.uses(place):
            await place.close()

    def _new_place(self, token: str | None) -> Place:
        link = Link(self._options, token)
        return Place(link, Watch(self._options.server, link.counts))

    async def close(self) -> None:
        """Close all connections."""
        for session in list(self.sessions.all()):
            await self.log_out(session)
        if self._everybody is not None:
            await self._everybody.close()
