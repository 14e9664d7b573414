"""Alerts in the words of deploy/alerts.yaml, the history behind charts, and one question for all viewers."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from stiqueue.errors import Unauthenticated, Unavailable
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.web.alerts import RULES, AlertBook, down
from stiqueue.web.history import SAMPLES, History
from stiqueue.web.overview import overview
from stiqueue.web.watch import Watch

FILE = Path(__file__).parents[2] / "deploy" / "alerts.yaml"
SECONDS = {"s": 1, "m": 60, "h": 3_600}


def in_file() -> dict[str, dict[str, Any]]:
    (group,) = yaml.safe_load(FILE.read_text())["groups"]
    return {rule["alert"]: rule for rule in group["rules"]}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_an_alert_has_the_words_and_the_patience_of_the_file(rule: Any) -> None:
    other = in_file()[rule.name]
    assert rule.severity == other["labels"]["severity"]
    text = other.get("for", "0s")
    assert rule.seconds == int(text[:-1]) * SECONDS[text[-1]]
    words = rule.summary(pb.QueueCounts(queue="jobs", ready=7, oldest_ready_age_ms=700_000, oldest_lease_age_ms=1))
    pattern = re.escape(other["annotations"]["summary"]).replace(re.escape("{{ $labels.queue }}"), "jobs")
    assert re.fullmatch(re.sub(r"\\\{\\\{.*?\\\}\\\}", ".+", pattern), words)


def test_the_console_says_which_alerts_it_cannot_tell() -> None:
    told = {rule.name for rule in RULES} | {down("x", 0).name}
    page = (FILE.parents[1] / "stiqueue/web/templates/alerts.html").read_text()
    assert in_file().keys() - told == set(re.findall(r"StiQueue[A-Z]\w+", page))


def test_an_absent_server_is_an_alert() -> None:
    rule = in_file()["StiQueueDown"]
    alert = down("127.0.0.1:1234", 61)
    assert (alert.severity, alert.needed) == (rule["labels"]["severity"], 60)
    assert alert.summary == "127.0.0.1:1234 does not answer"
    assert (alert.is_firing, down("x", 59).is_firing) == (True, False)


def counts(queue: str = "jobs", **numbers: int) -> pb.QueueCounts:
    return pb.QueueCounts(queue=queue, **numbers)  # type: ignore[arg-type]


def test_a_condition_fires_once_it_has_held_for_long_enough() -> None:
    book = AlertBook()

    def names(now: float, *found: pb.QueueCounts) -> list[tuple[str, bool]]:
        return [(alert.name, alert.is_firing) for alert in book.read(found, now)]

    lonely = counts(ready=1)
    assert names(0, lonely) == [("StiQueueNoConsumers", False)]
    assert names(100, lonely) == [("StiQueueNoConsumers", False)]
    assert names(200, counts(ready=1, consumers=1)) == []
    for second in range(300, 600, 60):
        assert names(second, lonely) == [("StiQueueNoConsumers", False)]
    assert names(601, lonely) == [("StiQueueNoConsumers", True)]
    assert names(2_000, lonely) == [("StiQueueNoConsumers", False)]  # nobody watched meanwhile
    assert names(2_001, counts("jobs.dead", ready=1)) == []


def test_increases_are_those_of_the_last_minutes() -> None:
    book = AlertBook()

    def names(now: float, **numbers: int) -> set[str]:
        return {alert.name for alert in book.read([counts(consumers=1, **numbers)], now)}

    assert names(0, dead_lettered=5, expired=5) == set()
    assert names(60, dead_lettered=6, expired=5) == {"StiQueueDeadLetters"}
    for second in range(120, 900, 60):
        assert "StiQueueDeadLetters" in names(second, dead_lettered=6, expired=5)
    for second in range(960, 1_140, 60):
        names(second, dead_lettered=6, expired=5)
    assert names(1_140, dead_lettered=6, expired=5) == set()
    assert names(1_150, dead_lettered=6, expired=9, requeued=3, acked=2) == {"StiQueueExpired", "StiQueueGivenBack"}
    assert names(1_160, oldest_ready_age_ms=600_001, oldest_lease_age_ms=3_600_001) >= {
        "StiQueueMessagesWait",
        "StiQueueLeaseHeldLong",
    }


def test_rates_are_those_between_two_samples() -> None:
    history = History()
    for second in range(SAMPLES + 10):
        history.add([counts(enqueued=second * 3, acked=second, ready=second)], float(second))
    trend = history.trend("jobs")
    assert trend.rates == (3, 1, 0)
    assert (len(trend.ready), len(trend.enqueued), len(history.times)) == (SAMPLES, SAMPLES, SAMPLES)
    history.add([counts(enqueued=4)], 250.0)  # the server began again
    assert history.trend("jobs").rates == (4, 0, 0)
    history.add([counts(), counts("new", enqueued=8)], 252.0)
    assert history.trend("new").rates == (4, 0, 0)
    history.add([counts()], 500.0)  # nobody watched
    assert (len(history.times), list(history.trend("jobs").enqueued)) == (1, [])
    assert list(history.trend("nothing").ready) == []


def test_trouble_comes_first_and_dead_letters_with_their_queue() -> None:
    found = [
        counts("busy", ready=5, consumers=2, leased=1),
        counts("calm", consumers=1),
        counts("late", ready=1, consumers=1, oldest_ready_age_ms=700_000),
        counts("with-dead", consumers=1),
        counts("with-dead.dead", ready=2),
        counts("only.dead", ready=1),
        counts("stopped", ready=1, consumers=1, paused=1),
    ]
    by_name = {each.queue: each for each in found}
    book = AlertBook()
    for now in range(0, 420, 60):
        alerts = book.read(found, now)
    shown = overview(by_name, History(), alerts)
    assert [row.queue for row in shown.rows] == ["late", "stopped", "only", "with-dead", "busy", "calm"]
    assert [row.dead for row in shown.rows] == [0, 0, 1, 2, 0, 0]
    assert (shown.dead, shown.queues) == (3, 6)
    assert [row.queue for row in overview(by_name, History(), [], "LATE").rows] == ["late"]
    assert [row.queue for row in overview(by_name, History(), [], ".dead").rows] == ["only.dead", "with-dead.dead"]
    assert len(overview(by_name, History(), [], shown=2).rows) == 2


def test_all_viewers_share_one_question_and_nobody_asks_without_them() -> None:
    async def story() -> None:
        asked = 0
        answers: list[Exception | None] = []

        async def count() -> list[pb.QueueCounts]:
            nonlocal asked
            asked += 1
            failure = answers.pop(0) if answers else None
            if failure is not None:
                raise failure
            return [counts(ready=asked)]

        now = 0.0
        watch = Watch("here", count, lambda: now)
        viewers = [watch.ticks() for _ in range(20)]
        for viewer in viewers:
            await anext(viewer)
        for viewer in viewers:
            await anext(viewer)
        assert (asked, watch.counts["jobs"].ready) == (1, 1)
        answers += [Unavailable("gone"), Unauthenticated("who?")]
        now = 10.0
        await watch.look()
        assert isinstance(watch.problem, Unavailable)
        assert (watch.counts["jobs"].ready, watch.alerts[0].name) == (1, "StiQueueDown")
        now = 75.0
        assert watch.silent_seconds == 65.0
        await watch.look()
        assert watch.is_locked_out
        await watch.look()
        assert (watch.problem, watch.alerts[0].name) == (None, "StiQueueNoConsumers")
        for viewer in viewers:
            await viewer.aclose()
        before = asked
        for _ in range(5):
            await asyncio.sleep(0)
        assert asked == before
        await watch.close()

    asyncio.run(story())
