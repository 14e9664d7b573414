"""Judges a recorded history: what was lost, invented, delivered again without a cause or out of order.

`check` is a pure function: the same events always give the same result.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from enum import Enum
from itertools import pairwise, takewhile

from .history import FOREVER, SECOND, Delivery, History
from .recorder import Event, producer_and_counter


class Verdict(Enum):
    """What a run proves."""

    GOOD = "good"
    BAD = "bad"
    UNKNOWN = "unknown"
    """Nothing: it did not do what it was to do. A failed test, like BAD."""


@dataclass(frozen=True)
class Expectation:
    """What a run must have done before anything is concluded from it, and what it may do."""

    confirmed: int = 1
    """At least so many confirmed messages."""
    fault: bool = True
    """At least one fault seen to have taken effect, or one cancelled stream."""
    drained: bool = True
    """A drain has found the server empty. False where the messages end with the server: losses are not judged then."""
    one_consumer: bool = False
    """One stream at a time: the order is judged over all streams of a queue together."""
    ordered: bool = True
    """False with priorities, delays or several sends under way in one producer: the order is not judged then."""
    slack_s: float = 0.5
    """A consumer may write a delivery down so much later than the server's lease began."""


@dataclass
class Result:
    """The counts of a run and its errors; each list holds values of messages. See each field for its error."""

    attempted: int = 0
    confirmed: int = 0
    delivered: int = 0
    """Deliveries, repeated ones too."""
    received: int = 0
    """Messages delivered at least once."""
    duplicates: Counter[str] = field(default_factory=Counter)
    """Repeated deliveries that are allowed, by their cause; ``late``: read from a stream that was over by then."""
    recovered: list[str] = field(default_factory=list)
    """Received although nobody was told that they were enqueued. Not an error."""

    lost_prefix: dict[str, list[str]] = field(default_factory=dict)
    """Confirmed and never received: the first ones of a producer (all of them: also here), as a start would lose."""
    lost_middle: dict[str, list[str]] = field(default_factory=dict)
    """The same, between received ones: as a race loses."""
    lost_postfix: dict[str, list[str]] = field(default_factory=dict)
    """The same, the last ones of a producer: as a missing sync loses."""
    vanished: list[str] = field(default_factory=list)
    """Confirmed and received, settled by nobody, and gone: the give-back lost them."""
    invented: list[str] = field(default_factory=list)
    """Received, but never attempted, certainly refused, or with another body than it was sent with."""
    duplicated: list[str] = field(default_factory=list)
    """Received again without a cause: no stream ended, nobody died or gave back, no time ran out, no send repeated."""
    acked_again: list[str] = field(default_factory=list)
    """Received after its acknowledgement was answered ok."""
    inversions: list[str] = field(default_factory=list)
    """Received for the first time after a younger message of its producer was received for the first time."""
    two_holders: list[str] = field(default_factory=list)
    """Held by two open streams at one time, or one lease delivered on two."""
    doubts: list[str] = field(default_factory=list)
    """Why the run proves nothing."""

    @property
    def errors(self) -> dict[str, int]:
        """How many messages each class of error struck; only classes with any."""
        lost = {name: sum(map(len, getattr(self, name).values())) for name in LOST}
        return {name: n for name, n in {**lost, **{name: len(getattr(self, name)) for name in WRONG}}.items() if n}

    @property
    def verdict(self) -> Verdict:
        """An error is an error in any run; without one, a doubtful run proves nothing."""
        if self.errors:
            return Verdict.BAD
        return Verdict.UNKNOWN if self.doubts else Verdict.GOOD

    def summary(self) -> str:
        """Say it in one paragraph, with a few examples of each error."""
        text = f"{self.verdict.value}: attempted {self.attempted}, confirmed {self.confirmed}, "
        text += f"delivered {self.delivered} ({self.received} messages), duplicates {dict(self.duplicates)}, "
        text += f"recovered {len(self.recovered)}"
        for name, count in self.errors.items():
            found = getattr(self, name)
            examples = found if isinstance(found, list) else [value for lost in found.values() for value in lost]
            text += f"; {name} {count}: {' '.join(examples[:5])}"
        return "; ".join([text, *self.doubts])


LOST = [item.name for item in fields(Result) if item.name.startswith("lost_")]
WRONG = ["vanished", "invented", "duplicated", "acked_again", "inversions", "two_holders"]


def check(events: Iterable[Event], expectation: Expectation | None = None) -> Result:
    """Judge a run by its events, in the order of time."""
    expectation = expectation or Expectation()
    history = History.of(events)
    result = Result(
        attempted=len(history.sends),
        confirmed=sum(send.confirmed for send in history.sends.values()),
        delivered=len(history.deliveries),
        received=len({delivery.value for delivery in history.deliveries}),
    )
    _find_invented(history, result)
    if expectation.drained:
        _find_lost(history, result)
    _find_repeated(history, result, expectation.slack_s)
    if expectation.ordered:
        _find_inversions(history, result, expectation)
    _find_doubts(history, result, expectation)
    return result


def _find_invented(history: History, result: Result) -> None:
    for value in dict.fromkeys(delivery.value for delivery in history.deliveries):
        send = history.sends.get(value)
        if send is None or send.most_copies == 0:
            result.invented.append(value)
        elif not send.confirmed:
            result.recovered.append(value)


def _find_lost(history: History, result: Result) -> None:
    if not history.drained:
        return
    received = {delivery.value for delivery in history.deliveries}
    done = {delivery.value for delivery in history.deliveries if _settled(history, delivery)}
    by_producer: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for value, send in history.sends.items():
        if send.confirmed:
            producer, counter = producer_and_counter(value)
            by_producer[producer].append((counter, value))
            if value in received and value not in done:
                result.vanished.append(value)
    for producer, numbered in by_producer.items():
        values = [value for _, value in sorted(numbered)]
        prefix = list(takewhile(lambda value: value not in received, values))
        rest = values[len(prefix) :]
        postfix = list(takewhile(lambda value: value not in received, reversed(rest)))[::-1]
        middle = [value for value in rest[: len(rest) - len(postfix)] if value not in received]
        for found, lost in ((result.lost_prefix, prefix), (result.lost_middle, middle), (result.lost_postfix, postfix)):
            if lost:
                found[producer] = lost


def _settled(history: History, delivery: Delivery) -> bool:
    """Whether this delivery can be the reason why the message is gone from the server."""
    if history.streams[delivery.stream].no_ack:
        return True
    settlement = history.settlements.get(delivery.lease)
    return settlement is not None and (settlement.confirmed < FOREVER or settlement.unanswered > 0)


def _find_repeated(history: History, result: Result, slack_s: float) -> None:
    copies: Counter[str] = Counter()
    for (_, _, value), deliveries in history.by_copy().items():
        copies[value] += 1
        send = history.sends.get(value)
        if send and copies[value] > max(1, send.most_copies):
            result.duplicated.append(value)
        elif copies[value] > 1:
            result.duplicates["sent again"] += 1
        confirmed = min((_confirmed(history, delivery) for delivery in deliveries), default=FOREVER)
        timely = [delivery for delivery in deliveries if not history.late(delivery)]
        result.duplicates.update(["late"] * min(len(deliveries) - len(timely), len(deliveries) - 1))
        result.acked_again.extend(value for delivery in timely if delivery.t > confirmed)
        for before, after in pairwise(timely):
            if confirmed >= after.t:
                _judge_repetition(history, result, before, after, slack_s)


def _confirmed(history: History, delivery: Delivery) -> int:
    settlement = history.settlements.get(delivery.lease)
    return settlement.confirmed if settlement else FOREVER


def _judge_repetition(history: History, result: Result, before: Delivery, after: Delivery, slack_s: float) -> None:
    causes = [cause for t, cause in sorted(history.releases(before, slack_s)) if t <= after.t]
    settlement = history.settlements.get(before.lease)
    acked = settlement.acked if settlement else FOREVER
    same_lease = before.lease != "" and before.lease == after.lease
    if before.stream != after.stream and (same_lease or (before.lease and not causes and after.t < acked)):
        result.two_holders.append(after.value)
    elif causes and not same_lease:
        result.duplicates[causes[0]] += 1
    else:
        result.duplicated.append(after.value)


def _find_inversions(history: History, result: Result, expectation: Expectation) -> None:
    deaths = history.server_deaths()
    seen: set[tuple[str, str, str]] = set()
    youngest: dict[tuple[str, int, str], tuple[int, int]] = {}
    for delivery in history.deliveries:
        if delivery.copy in seen or delivery.value not in history.sends:
            continue
        seen.add(delivery.copy)
        if delivery.attempt > 1 or history.late(delivery):
            continue  # delivered before, to somebody who did not live to write it down: it returns to its old place
        producer, counter = producer_and_counter(delivery.value)
        line = delivery.queue if expectation.one_consumer else delivery.stream
        place = (line, bisect_right(deaths, delivery.t), producer)
        last, t = youngest.get(place, (counter, delivery.t))
        if counter < last and (
            expectation.one_consumer
            or not history.gives_back(t - int(expectation.slack_s * SECOND), delivery.t, but=delivery.stream)
        ):
            result.inversions.append(delivery.value)
        youngest[place] = max((counter, delivery.t), (last, t))


def _find_doubts(history: History, result: Result, expectation: Expectation) -> None:
    if expectation.drained and not history.drained:
        result.doubts.append("not drained")
    if expectation.fault and not history.cancelled and all(fault.effect == FOREVER for fault in history.faults):
        result.doubts.append("no fault took effect")
    if result.confirmed < expectation.confirmed:
        result.doubts.append(f"only {result.confirmed} of {expectation.confirmed} messages were confirmed")
