"""Held back by nobody: whatever a client did last, the next message is there for others. Fault 62."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from support.waiting import PATIENCE, Call, until

from stiqueue import InvalidRequest, LeaseStale, Message, QueueFull
from stiqueue.client.base import BaseClient

from .conftest import Place
from .test_deq import take


def others_have(other: BaseClient, *expected: tuple[bytes, int]) -> None:
    """Check that another client gets these messages, each at that attempt, and that nothing else is left."""
    until(lambda: other.counts().leased, 0)
    got = []
    for _ in expected:
        message = other.deq(timeout=PATIENCE)
        assert message is not None, got
        got.append((bytes(message), message.attempt))
    assert got == list(expected)
    other.ack()
    counts = other.counts()
    assert (counts.ready, counts.leased, counts.delayed) == (0, 0, 0)


Step = Callable[[BaseClient, Message], object]

STEPS: dict[str, Step] = {
    "ack": lambda client, message: message.ack(),
    "client.ack": lambda client, message: client.ack(),
    "client.ack(message)": lambda client, message: client.ack(message),
    "requeue": lambda client, message: message.requeue(3600),
    "dead_letter": lambda client, message: message.dead_letter("no"),
    "ack_and_enq": lambda client, message: message.ack_and_enq("next", queue="next"),
    "enq_and_ack": lambda client, message: client.enq_and_ack("next", message, queue="next"),  # type: ignore[attr-defined]
    "disconnect": lambda client, message: client.disconnect(),
    "close": lambda client, message: client.close(),
    "deq of another queue": lambda client, message: client.deq(timeout=0, queue="empty"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.options(max_attempts=1)
def test_62_after_every_step_the_next_message_is_for_others(place: Place, other: BaseClient, step: str) -> None:
    client = place.client()
    other.enq_many(list("ab"))
    STEPS[step](client, take(client))
    waiting = Call(other.deq, timeout=PATIENCE)
    message = waiting.result()
    assert message is not None
    assert (bytes(message), message.attempt) == (b"b", 1)
    assert other.counts().requeued == (step == "requeue"), "nothing was leased that nobody asked for"


@pytest.mark.options(max_attempts=1)
@pytest.mark.parametrize("step", ["enq_and_ack", "ack_and_enq"])
def test_handing_over_makes_no_dead_letter_of_what_nobody_saw(place: Place, other: BaseClient, step: str) -> None:
    client = place.client()
    other.enq_many(map(str, range(30)))
    for number in range(30):
        message = take(client)
        assert message == str(number).encode()
        STEPS[step](client, message)
        assert client.deq(timeout=0, queue="empty") is None
    counts = other.counts()
    assert (counts.acked, counts.requeued, counts.dead_lettered) == (30, 0, 0)
    assert other.cnt(queue="next") == 30


def test_enq_and_ack_goes_to_the_queue_of_the_client_that_is_asked(place: Place, other: BaseClient) -> None:
    client = place.client(queue="successors")
    other.enq("a")
    assert client.enq_and_ack("b", take(other)) == 1
    assert (other.cnt(), other.cnt(queue="successors"), other.counts().acked) == (0, 1, 1)
    assert client.deq(timeout=0) == b"b"


@pytest.mark.parametrize("step", ["enq_and_ack", "ack_and_enq"])
def test_a_hand_over_after_the_connection_was_closed_is_too_late(place: Place, other: BaseClient, step: str) -> None:
    client = place.client()
    other.enq("a")
    message = take(client)
    client.disconnect()
    until(lambda: other.counts().acked, 1)
    with pytest.raises(LeaseStale):
        STEPS[step](client, message)
    assert other.cnt(queue="next") == 0


@pytest.mark.parametrize("auto_ack", [True, False])
def test_a_hand_over_that_was_done_before_is_answered_and_acks(place: Place, other: BaseClient, auto_ack: bool) -> None:
    """By a worker that died before its ack, or by this one, whose first call may have had no answer."""
    client = place.client(auto_ack=auto_ack)
    other.enq_many(list("ab"))
    first = other.enq("next", queue="next", request_id="r")
    message = take(client)
    for _ in range(2):
        assert message.ack_and_enq("next", queue="next", request_id="r") == first
    assert (other.cnt(queue="next"), other.counts().acked) == (1, 1)
    others_have(other, (b"b", 1))


def test_a_loop_goes_on_after_a_hand_over_that_was_done_before(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(list("ab"))
    other.enq("next", queue="next", request_id="r")
    seen = []
    for message in client.consume(timeout=1.0):
        seen.append(bytes(message))
        message.ack_and_enq("next", queue="next", request_id="r" if message == b"a" else None)
    assert seen == [b"a", b"b"]
    assert (other.cnt(queue="next"), other.counts().acked) == (2, 2)


@pytest.mark.parametrize("auto_ack", [True, False])
def test_a_message_that_is_given_back_untouched_waits_for_its_delay(
    place: Place, other: BaseClient, auto_ack: bool
) -> None:
    client = place.client(auto_ack=auto_ack)
    other.enq_many(list("ab"))
    assert take(client).requeue(3600, untouched=True)
    counts = other.counts()
    assert (counts.ready, counts.delayed, counts.leased) == (1, 1, 0)
    assert take(client) == b"b"


def test_enq_and_ack_refuses_what_is_no_message(client: BaseClient) -> None:
    with pytest.raises(InvalidRequest, match="message: "):
        client.enq_and_ack("b", b"a")  # type: ignore[arg-type]
    assert client.cnt() == 0


@pytest.mark.options(max_messages=2)
@pytest.mark.parametrize("step", ["enq_and_ack", "ack_and_enq"])
def test_a_hand_over_that_is_refused_can_be_tried_again_or_gives_the_message_back(
    place: Place, other: BaseClient, step: str
) -> None:
    client = place.client()
    other.enq_many(list("ab"), queue="next")
    other.enq_many(list("cd"))
    message = take(client)
    with pytest.raises(QueueFull):
        STEPS[step](client, message)
    (again,) = [message for message in [client.deq(timeout=PATIENCE)] if message is not None]
    assert (bytes(again), again.attempt) == (b"c", 2), "given back rather than acked: it has no successor"
    assert other.deq(timeout=0, queue="next") == b"a"
    other.ack()
    STEPS[step](client, again)
    others_have(other, (b"d", 1))


BAD: dict[str, Callable[[Message], Any]] = {
    "requeue": lambda message: message.requeue(-1),
    "dead_letter": lambda message: message.dead_letter("x" * 1025),
}


@pytest.mark.parametrize("step", BAD)
def test_what_could_not_be_settled_as_wanted_is_not_acked(place: Place, other: BaseClient, step: str) -> None:
    """Neither by the next `deq` nor by the end of the client."""
    client = place.client()
    other.enq_many(list("ab"))
    for attempt in (1, 2):
        message = take(client, timeout=PATIENCE)
        assert (bytes(message), message.attempt) == (b"a", attempt)
        with pytest.raises(InvalidRequest):
            BAD[step](message)
    client.close()
    others_have(other, (b"a", 3), (b"b", 1))


def test_what_is_settled_after_the_next_deq_leaves_that_one_alone(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    first, second = take(client), take(client)
    assert first.requeue() is False
    assert second.ack() is True


# -- who can settle it is gone ----------------------------------------------------------------------------------------

in_threads = pytest.mark.parametrize("place", ["server", "durable", "local"], indirect=True)


@in_threads
def test_62_a_thread_that_has_ended_holds_nothing(place: Place, other: BaseClient) -> None:
    client = place.client()
    other.enq_many(list("ab"))

    def work() -> None:
        take(client)

    Call(work).result()
    gc.collect()
    others_have(other, (b"a", 2), (b"b", 1))
    client.enq("c")
    assert take(client) == b"c", "the client goes on"


@in_threads
def test_62_a_thread_that_failed_holds_nothing(place: Place, other: BaseClient) -> None:
    client = place.client()
    other.enq_many(list("ab"))

    def work() -> None:
        take(client)
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        Call(work).result()
    gc.collect()
    others_have(other, (b"a", 2), (b"b", 1))


@in_threads
def test_a_message_that_is_still_there_stays_leased_when_its_thread_has_ended(place: Place, other: BaseClient) -> None:
    client = place.client()
    other.enq_many(list("ab"))
    message = Call(take, client).result()
    gc.collect()
    assert (other.counts().leased, other.counts().ready) == (1, 1)
    assert message.ack() is True
    del message
    others_have(other, (b"b", 1))


@pytest.mark.slow
@in_threads
def test_threads_that_have_ended_are_not_counted_among_those_that_deq(place: Place, other: BaseClient) -> None:
    client = place.client()
    other.enq_many(list("abcdef"))
    for _ in range(6):
        Call(lambda: bytes(take(client))).result()
        gc.collect()
        until(lambda: other.counts().consumers, 0)
    assert len(client._session.held) == 0


def test_without_auto_ack_a_message_that_is_gone_goes_back(place: Place, other: BaseClient) -> None:
    client = place.client(auto_ack=False)
    other.enq_many(list("abc"))
    kept = take(client)
    take(client)
    gc.collect()
    until(lambda: other.counts().leased, 1)
    assert kept.ack() is True
    others_have(other, (b"b", 2), (b"c", 1))


@in_threads
def test_a_message_may_vanish_in_the_middle_of_anything(place: Place, other: BaseClient) -> None:
    """Found by the garbage collector, it is given back from wherever that runs: also where locks are held."""
    client = place.client(auto_ack=False)
    stop = threading.Event()

    def churn() -> None:
        while not stop.is_set():
            client.counts()
            gc.collect(0)

    churning = [Call(churn) for _ in range(2)]
    for number in range(20):
        other.enq(str(number))
        cycle: list[Any] = [take(client, timeout=PATIENCE)]
        cycle.append(cycle)
        del cycle
    gc.collect()
    stop.set()
    for each in churning:
        each.result()
    until(lambda: (other.counts().ready, other.counts().leased), (20, 0))


@pytest.mark.parametrize("end", ["exception", "break"])
def test_62_a_loop_whose_iterator_is_gone_holds_nothing(place: Place, other: BaseClient, end: str) -> None:
    client = place.client()
    other.enq_many(list("abc"))

    def work() -> None:
        named = client.consume()
        for _ in named:
            if end == "break":
                break
            raise RuntimeError("a bug")

    with suppress(RuntimeError):
        work()
    gc.collect()
    others_have(other, (b"a", 2), (b"b", 1), (b"c", 1))
