"""When a job runs: cron expressions in zones whose clocks are set, and fixed intervals."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from itertools import islice, pairwise
from zoneinfo import ZoneInfo

import pytest

from stiqueue import InvalidRequest
from stiqueue.cron.times import Cron, Every, shown


def at(text: str, zone: str = "UTC") -> float:
    """Return a time as seconds since 1970."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp()


def runs(expression: str, zone: str, after: str, count: int) -> list[str]:
    """Return the next runs as the clocks of the zone show them, with the distance from UTC."""
    found = islice(Cron(expression, zone).between(at(after, zone), float("inf")), count)
    return [datetime.fromtimestamp(each, ZoneInfo(zone)).strftime("%m-%d %H:%M%z") for each in found]


# In each zone: the day when clocks are set forward, and the one when they are set back.
FORWARD = [
    # zone, day before, expression, runs
    ("Europe/Berlin", "2026-03-28T12:00", "30 2 * * *", ["03-29 03:00+0200", "03-30 02:30+0200"]),
    ("America/New_York", "2026-03-07T12:00", "30 2 * * *", ["03-08 03:00-0400", "03-09 02:30-0400"]),
    ("Australia/Lord_Howe", "2026-10-03T12:00", "15 2 * * *", ["10-04 02:30+1100", "10-05 02:15+1100"]),  # half an hour
]
BACK = [
    ("Europe/Berlin", "2026-10-24T12:00", "30 2 * * *", ["10-25 02:30+0200", "10-26 02:30+0100"]),
    ("America/New_York", "2026-10-31T12:00", "30 1 * * *", ["11-01 01:30-0400", "11-02 01:30-0500"]),
    ("Australia/Lord_Howe", "2026-04-04T12:00", "45 1 * * *", ["04-05 01:45+1100", "04-06 01:45+1030"]),
]


@pytest.mark.parametrize(("zone", "after", "expression", "expected"), [*FORWARD, *BACK])
def test_a_daily_run_comes_once_when_clocks_are_set(
    zone: str, after: str, expression: str, expected: list[str]
) -> None:
    assert runs(expression, zone, after, 2) == expected


@pytest.mark.parametrize(("zone", "after", "expression", "expected"), [*FORWARD, *BACK])
def test_a_runner_that_starts_anywhere_finds_the_same_runs(
    zone: str, after: str, expression: str, expected: list[str]
) -> None:
    times = Cron(expression, zone)
    begin = int(at(after, zone))
    every_time = list(times.between(begin, begin + 48 * 3_600))
    assert len(every_time) == 2
    for start in range(begin, begin + 48 * 3_600, 300):
        later = [run for run in every_time if run > start]
        assert list(times.between(start, begin + 48 * 3_600)) == later


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        ("Europe/Berlin", "2026-03-29T00:00", 23),
        ("Europe/Berlin", "2026-10-25T00:00", 25),
        ("America/New_York", "2026-03-08T00:00", 23),
        ("America/New_York", "2026-11-01T00:00", 25),
        ("Africa/Casablanca", "2026-02-15T00:00", 25),  # clocks go back for Ramadan
        ("Africa/Casablanca", "2026-03-22T00:00", 23),
    ],
)
def test_an_hourly_run_comes_in_each_hour_that_there_is(zone: str, day: str, hours: int) -> None:
    begin = at(day, zone)
    end = (datetime.fromisoformat(day) + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).timestamp()
    found = list(Cron("5 * * * *", zone).between(begin, end))
    assert len(found) == hours
    assert {later - earlier for earlier, later in pairwise(found)} == {3_600}


def test_several_runs_in_an_hour_that_is_left_out_are_one() -> None:
    assert runs("0,20,40 2,3 * * *", "Europe/Berlin", "2026-03-29T00:00", 4) == [
        "03-29 03:00+0200",
        "03-29 03:20+0200",
        "03-29 03:40+0200",
        "03-30 02:00+0200",
    ]


def test_every_seventh_minute_begins_anew_with_each_hour() -> None:
    found = runs("*/7 * * * *", "UTC", "2026-01-01T00:41", 4)
    assert [each[6:11] for each in found] == ["00:42", "00:49", "00:56", "01:00"]


def test_the_29th_of_february() -> None:
    found = list(islice(Cron("0 12 29 2 *").between(at("2026-01-01"), float("inf")), 3))
    assert [shown(each) for each in found] == [f"{year}-02-29T12:00:00Z" for year in (2028, 2032, 2036)]


def test_a_leap_year_that_is_left_out() -> None:
    assert shown(Cron("0 0 29 2 *").after(at("2096-03-01")) or 0) == "2104-02-29T00:00:00Z"


def test_day_and_weekday_are_alternatives_unless_one_begins_with_a_star() -> None:
    found = [each[:5] for each in runs("0 0 13 * fri", "UTC", "2026-02-06T12:00", 4)]
    assert found == ["02-13", "02-20", "02-27", "03-06"]
    assert [each[:5] for each in runs("0 0 */10 * fri", "UTC", "2026-02-06T12:00", 2)] == ["05-01", "07-31"]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("0 25 * * *", "bad hour"),
        ("60 * * * *", "bad minute"),
        ("* * 0 * *", "bad day-of-month"),
        ("* * * 13 *", "bad month"),
        ("* * * * 8", "bad day-of-week"),
        ("*/0 * * * *", "bad minute"),
        ("30-10 * * * *", "bad minute"),
        ("0 3 * *", "it has 5 fields (minute, hour, day, month, weekday), not 4"),
        ("0 0 3 * * *", "it has 5 fields (minute, hour, day, month, weekday), not 6"),
        ("@daily", "it has 5 fields (minute, hour, day, month, weekday), no word such as @daily"),
        ("", "it has 5 fields (minute, hour, day, month, weekday), not 0"),
        ("0 0 31 2,4 *", "bad day-of-month"),
    ],
)
def test_a_wrong_expression_is_refused(expression: str, told: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Cron(expression)
    assert str(caught.value) == f'cron: "{expression}": {told}'


def test_an_interval_is_counted_from_1970() -> None:
    every = Every(10)
    assert every.after(1_000.0) == 1_010
    assert every.after(1_009.9) == 1_010
    assert list(every.between(1_000.0, 1_030.0)) == [1_010, 1_020, 1_030]
    assert every.zone is timezone.utc
