"""`prefetch` of a client: `deq` takes from what the server sent ahead, and all of it is given back as ever."""

from __future__ import annotations

import gc

import pytest
from support.waiting import Call, until

from stiqueue import InvalidRequest, State
from stiqueue.client.base import BaseClient

from .conftest import Place
from .test_deq import take
from .test_held_back import in_threads

LETTERS = [*"abcdefgh"]


def left(other: BaseClient) -> list[tuple[str, int]]:
    """Return the messages that are left and their attempts so far, once nothing is leased."""
    until(lambda: other.counts().leased, 0)
    return [(message.decode(), message.attempt) for message in other.peek_messages(state=State.ALL)]


def untried(letters: list[str]) -> list[tuple[str, int]]:
    return [(letter, 0) for letter in letters]


@pytest.fixture
def client(place: Place) -> BaseClient:
    return place.client(prefetch=4)


def test_deq_takes_in_order_what_was_sent_ahead(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    assert take(client) == b"a"
    until(lambda: other.counts().leased, 4)
    assert [take(client).decode() for _ in LETTERS[1:]] == LETTERS[1:]
    assert client.deq(timeout=0) is None
    assert (other.counts().acked, other.counts().leased) == (8, 0)


def test_each_message_is_acked_by_the_next_deq(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    for number in range(len(LETTERS)):
        take(client)
        until(lambda number=number: other.counts().acked, number)  # type: ignore[misc]


def test_deq_waits_for_a_message_and_for_the_next(client: BaseClient, other: BaseClient) -> None:
    def take_each() -> None:
        taken.append(bytes(take(client, timeout=None)))
        taken.append(bytes(take(client, timeout=None)))

    taken: list[bytes] = []
    waiting = Call(take_each)
    until(lambda: other.counts().consumers, 1)
    assert not waiting.is_over(0.05)
    other.enq("a")
    until(lambda: (taken, other.counts().acked), ([b"a"], 1))
    assert not waiting.is_over(0.05)
    other.enq("b")
    waiting.result()
    assert taken == [b"a", b"b"]


@pytest.mark.parametrize("timeouts", [(0, None, 5, 0.5), (0, 5, 5, 0)])
def test_timeouts_may_change(client: BaseClient, other: BaseClient, timeouts: tuple[float | None, ...]) -> None:
    other.enq_many(LETTERS)
    assert [client.deq(timeout=timeouts[at % 4]) for at in range(8)] == [letter.encode() for letter in LETTERS]
    assert client.deq(timeout=0) is None
    until(lambda: other.counts().acked, 8)


def test_settling_by_hand_leaves_what_was_sent_ahead(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    assert take(client).ack() is True
    assert take(client).dead_letter("no") is True
    assert take(client).requeue(3_600) is True
    assert take(client).ack_and_enq("next", queue="next") == 1
    assert client.enq_and_ack("next", take(client), queue="next") == 2  # type: ignore[attr-defined]
    assert client.ack() is True, "nothing is left to ack"
    assert take(client) == b"f"
    client.close()
    assert left(other) == [*untried(["g", "h"]), ("c", 1)]
    counts = other.counts()
    assert (counts.acked, counts.dead_lettered, other.cnt(queue="next")) == (4, 1, 2)


def test_what_could_not_be_settled_is_not_acked(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    with pytest.raises(InvalidRequest):
        take(client).requeue(-1)
    messages = [take(client, timeout=None) for _ in range(8)]
    assert sorted((each.decode(), each.attempt) for each in messages) == [("a", 2), *((each, 1) for each in "bcdefgh")]
    client.close()
    assert left(other) == []


@pytest.mark.options(max_attempts=1)
def test_close_acks_what_deq_returned_and_gives_the_others_back(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    take(client)
    take(client)
    client.close()
    assert left(other) == untried(LETTERS[2:])
    assert other.counts().acked == 2


def test_an_exception_gives_back_what_deq_returned(place: Place, other: BaseClient) -> None:
    other.enq_many(LETTERS)

    def work() -> None:
        with place.client(prefetch=4) as client:
            take(client)
            take(client)
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        work()
    assert left(other) == [("b", 1), *untried(LETTERS[2:])]


def test_disconnect_and_go_on(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    take(client)
    client.disconnect()
    assert left(other) == untried(LETTERS[1:])
    assert take(client) == b"b"


def test_deq_of_another_queue_gives_back_what_was_sent_ahead(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(LETTERS)
    take(client)
    assert client.deq(timeout=0, queue="empty") is None
    assert left(other) == untried(LETTERS[1:])
    assert other.counts().acked == 1


@in_threads
def test_a_thread_that_has_ended_holds_nothing(place: Place, other: BaseClient) -> None:
    client = place.client(prefetch=4)
    other.enq_many(LETTERS)

    def work() -> None:
        take(client)
        take(client)

    Call(work).result()
    gc.collect()
    assert left(other) == [("b", 1), *untried(LETTERS[2:])]


@in_threads
def test_a_thread_that_has_ended_leaves_its_last_message_alone(place: Place, other: BaseClient) -> None:
    client = place.client(prefetch=4)
    other.enq_many(LETTERS)
    message = Call(take, client).result()
    gc.collect()
    until(lambda: (other.counts().leased, other.cnt()), (1, 7))
    assert message.ack() is True
    until(lambda: other.counts().consumers, 0)
    assert left(other) == untried(LETTERS[1:])


@in_threads
def test_a_thread_that_settled_its_last_message_holds_nothing(place: Place, other: BaseClient) -> None:
    client = place.client(prefetch=4)
    other.enq_many(LETTERS)
    Call(lambda: take(client).ack()).result()
    gc.collect()
    assert left(other) == untried(LETTERS[1:])
    until(lambda: other.counts().consumers, 0)


@pytest.mark.parametrize("options", [{"ack_required": False}, {"auto_ack": False}])
def test_without_implicit_acks_nothing_is_sent_ahead(place: Place, other: BaseClient, options: dict[str, bool]) -> None:
    client = place.client(prefetch=4, **options)
    other.enq_many(LETTERS)
    kept = [take(client), take(client)]
    until(lambda: other.cnt(), 6)
    del kept
    client.close()
    assert [letter for letter, _ in left(other)][-6:] == LETTERS[2:]


@pytest.mark.parametrize("prefetch", [0, -1, 10_001, 1.5, "4", None, True])
def test_a_prefetch_that_makes_no_sense_is_refused(place: Place, prefetch: object) -> None:
    with pytest.raises(InvalidRequest, match="prefetch: "):
        place.client(prefetch=prefetch)


def test_prefetch_can_be_read_and_set(place: Place) -> None:
    client = place.client()
    if place.loop is None:
        assert client.prefetch == 1
        client.prefetch = 7
        assert client.prefetch == 7
        with pytest.raises(InvalidRequest, match="prefetch: "):
            client.prefetch = 0
