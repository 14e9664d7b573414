"""When a job runs: `Cron` and `Every`. Pure: the caller passes the time. Times are seconds since 1970."""

from __future__ import annotations

import difflib
import math
import zoneinfo
from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from typing import Protocol

from stiqueue.errors import InvalidRequest, NotSupported

FIELDS = 5
"""cronsim also reads a sixth field, for seconds, but then follows other rules when clocks change."""


class Times(Protocol):
    """The times at which a job runs."""

    @property
    def text(self) -> str:
        """The rule, as one line. Equal texts mean equal times."""
        ...

    @property
    def zone(self) -> tzinfo:
        """The time zone to show a time in."""
        ...

    def after(self, moment: float) -> int | None:
        """Return the first time later than `moment`; None: there is none within 50 years."""
        ...

    def between(self, start: float, end: float) -> Iterator[int]:
        """Iterate over the times later than `start` and not later than `end`, in order."""
        ...


class Every:
    """Every so many seconds, counted from 1970, so that all machines agree on the times."""

    zone: tzinfo = timezone.utc

    def __init__(self, seconds: int) -> None:
        """Run every `seconds`, at least 1."""
        self._seconds = seconds
        self.text = f"every {seconds} s"

    def after(self, moment: float) -> int:
        """See `Times`."""
        return (math.floor(moment) // self._seconds + 1) * self._seconds

    def between(self, start: float, end: float) -> Iterator[int]:
        """See `Times`."""
        run = self.after(start)
        while run <= end:
            yield run
            run += self._seconds


class Cron:
    """A cron expression of five fields, in a time zone.

    Where clocks are set forward, a run in the hour that is left out comes at the end of that hour. Where they are set
    back, a run in the hour that comes twice comes the first time. Runs whose minute or hour begins with ``*`` follow
    real time instead: they come in each hour that there is. These are the rules of Debian's cron.
    """

    def __init__(self, expression: str, zone: str = "UTC") -> None:
        """Check the expression and the zone.

        Raises:
            InvalidRequest: one of them is wrong; `reason` is BAD_CRON or BAD_TIMEZONE.
            NotSupported: the extra ``cron`` is not installed.
        """
        try:
            import cronsim
        except ImportError as error:
            raise NotSupported("cron expressions need cronsim: pip install 'stiqueue[cron]'", "NO_CRONSIM") from error
        self.zone = zone_named(zone)
        self.text = f"{' '.join(expression.split())} {zone}"
        self._expression = expression
        self._simulation = cronsim.CronSim
        number = len(expression.split())
        if number != FIELDS:
            what = "no word such as @daily" if expression.strip().startswith("@") else f"not {number}"
            raise _bad(expression, f"it has {FIELDS} fields (minute, hour, day, month, weekday), {what}")
        try:
            self._simulation(expression, datetime(2000, 1, 1))
        except cronsim.CronSimError as error:
            raise _bad(expression, str(error).lower()) from error
        if self.after(0.0) is None:
            raise _bad(expression, "it never comes")

    def after(self, moment: float) -> int | None:
        """See `Times`."""
        return next(self._later(moment), None)

    def between(self, start: float, end: float) -> Iterator[int]:
        """See `Times`."""
        for found in self._later(start):
            if found > end:
                return
            yield found

    def _later(self, moment: float) -> Iterator[int]:
        last = moment
        for found in self._simulation(self._expression, datetime.fromtimestamp(math.floor(moment), self.zone)):
            seconds = round(found.timestamp())
            # cronsim goes by the wall clock here: it repeats a time when that is set back, and after a gap may name the
            # same one several times.
            if seconds > last:
                last = seconds
                yield seconds


def zone_named(name: str) -> tzinfo:
    """Return the time zone `name`.

    Raises:
        InvalidRequest: there is none.
    """
    if name == "UTC":  # known everywhere; the others come from the system or from the package tzdata
        return timezone.utc
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        known = zoneinfo.available_timezones()
        if not known:
            text = f"timezone: {name!r}: this machine knows no zone but UTC; pip install 'stiqueue[cron]'"
            raise InvalidRequest(text, "BAD_TIMEZONE") from error
        meant = difflib.get_close_matches(name, known, 1) or ["Europe/Berlin"]
        text = f'timezone: {name!r} is not known; write a name such as "{meant[0]}"'
        raise InvalidRequest(text, "BAD_TIMEZONE") from error


def _bad(expression: str, why: str) -> InvalidRequest:
    return InvalidRequest(f'cron: "{expression}": {why}', "BAD_CRON")


def shown(moment: int) -> str:
    """Return a time as it is written in request ids and headers, such as 2026-11-27T03:00:00Z."""
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
