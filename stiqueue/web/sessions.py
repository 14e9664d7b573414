"""Who is logged in, and how fast one may try to."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from stiqueue.errors import LimitReached
from stiqueue.web.link import Link, Rights
from stiqueue.web.watch import Watch

IDLE_SECONDS = 3_600.0
"""After how long without a request a session ends."""
LONGEST_SECONDS = 12 * 3_600.0
"""After how long it ends in any case."""
MOST_SESSIONS = 1_000
MOST_SAYINGS = 500

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 8.0
FORGIVEN_SECONDS = 600.0
"""After how long without a failure an address is as good as new."""
MOST_WAITING = 5
"""How many log-ins of one address may wait at a time."""
MOST_ADDRESSES = 10_000


@dataclass(eq=False)
class Place:
    """A connection to the server with one token, shared by all sessions that have it."""

    link: Link
    watch: Watch
    rights: Rights = field(default_factory=Rights)

    async def close(self) -> None:
        """Ask no more and close the connection."""
        await self.watch.close()
        await self.link.close()


@dataclass(eq=False)
class Session:
    """One person who is logged in."""

    id: str
    token: str = field(repr=False)
    place: Place
    began: float
    used: float
    under_way: set[asyncio.Task[str]] = field(default_factory=set, repr=False)
    """Long actions, which end with the session."""


class Sessions:
    """All sessions of a console. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without any."""
        self._clock = clock
        self._sessions: OrderedDict[str, Session] = OrderedDict()

    def begin(self, token: str, place: Place) -> Session:
        """Log somebody in; of too many sessions the one that was unused longest ends."""
        while len(self._sessions) >= MOST_SESSIONS:
            self.end(next(iter(self._sessions.values())))
        now = self._clock()
        session = Session(secrets.token_urlsafe(32), token, place, now, now)
        self._sessions[session.id] = session
        return session

    def find(self, name: str) -> Session | None:
        """Return the session, which counts as used by this; None if there is none, or none any more."""
        session = self._sessions.get(name)
        if session is None:
            return None
        now = self._clock()
        if now - session.used > IDLE_SECONDS or now - session.began > LONGEST_SECONDS:
            self.end(session)
            return None
        session.used = now
        self._sessions.move_to_end(name)
        return session

    def end(self, session: Session) -> None:
        """Log somebody out, and end what they have under way: what it has not done stays as it was."""
        self._sessions.pop(session.id, None)
        for task in session.under_way:
            task.cancel()

    def all(self) -> list[Session]:
        """Return all sessions."""
        return list(self._sessions.values())

    def place_of(self, token: str) -> Place | None:
        """Return the connection of somebody else who logged in with this token."""
        return next((each.place for each in self._sessions.values() if each.token == token), None)

    def uses(self, place: Place) -> bool:
        """Whether somebody is logged in through this connection."""
        return any(each.place is place for each in self._sessions.values())


class Slowdown:
    """Makes addresses wait that try tokens: longer after each failure. For one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin without failures."""
        self._clock = clock
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._waiting: dict[str, int] = {}

    async def wait(self, address: str) -> None:
        """Wait for the turn of an `address`.

        Raises:
            LimitReached: too many of its log-ins wait already.
        """
        waiting = self._waiting.get(address, 0)
        if waiting >= MOST_WAITING:
            raise LimitReached("too many log-ins at a time; try again later", "TOO_MANY_LOGINS")
        pause = self.pause(address) * (1 + waiting)
        if not pause:
            return
        self._waiting[address] = waiting + 1
        try:
            await asyncio.sleep(pause)
        finally:
            self._waiting[address] -= 1
            if not self._waiting[address]:
                del self._waiting[address]

    def pause(self, address: str) -> float:
        """Return how many seconds the next log-in of `address` waits."""
        failures, last = self._failures.get(address, (0, 0.0))
        if not failures or self._clock() - last > FORGIVEN_SECONDS:
            return 0.0
        return float(min(FIRST_PAUSE_SECONDS * 2 ** (failures - 1), LONGEST_PAUSE_SECONDS))

    def failed(self, address: str) -> None:
        """Remember a failure."""
        failures = self._failures.pop(address, (0, 0.0))[0] if self.pause(address) else 0
        self._failures[address] = min(failures + 1, 10), self._clock()
        if len(self._failures) > MOST_ADDRESSES:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of an address."""
        self._failures.pop(address, None)


class Sayings:
    """What an action says on the page that follows it. For one event loop."""

    def __init__(self) -> None:
        """Begin without any."""
        self._texts: OrderedDict[str, tuple[str, bool]] = OrderedDict()

    def keep(self, text: str, is_good: bool = True) -> str:
        """Keep a text until it is shown; return its name."""
        name = secrets.token_urlsafe(12)
        self._texts[name] = text, is_good
        while len(self._texts) > MOST_SAYINGS:
            self._texts.popitem(last=False)
        return name

    def take(self, name: str) -> tuple[str, bool] | None:
        """Return a text and whether it is good news; None if it was shown."""
        return self._texts.pop(name, None)
