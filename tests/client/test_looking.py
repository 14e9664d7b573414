"""Counting, looking and tidying up."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from stiqueue import InvalidRequest, QueueFull, State
from stiqueue.client.base import BaseClient

from .conftest import Place


def test_cnt_counts_what_is_ready_now(client: BaseClient) -> None:
    assert client.cnt() == 0
    client.enq_many(list("abc"))
    client.enq("late", delay=3600)
    assert client.cnt() == 3
    client.deq(timeout=0)
    assert client.cnt() == 2


def test_counts_and_queues_tell_more(client: BaseClient) -> None:
    client.enq_many(list("abc"), queue="q")
    client.deq(timeout=0, queue="q")
    counts = client.counts(queue="q")
    assert (counts.queue, counts.ready, counts.leased, counts.consumers, counts.bytes) == ("q", 2, 1, 1, 3)
    assert client.queues().keys() == {"q"}
    assert client.queues()["q"].ready == 2


def test_peek_joins_the_bodies_and_takes_nothing(client: BaseClient) -> None:
    assert client.peek() == b""
    client.enq_many(["a", "b", "c"])
    assert client.peek() == b"a,b,c"
    assert client.peek(2) == b"a,b"
    assert client.peek(5) == b"a,b,c"
    assert client.peek(0, " | ") == b"a | b | c"
    assert client.peek(-1) == b"a,b,c"
    assert client.cnt() == 3


def test_peek_messages_tells_where_each_stands(place: Place, client: BaseClient) -> None:
    worker = place.client(consumer="worker 7", ack_timeout=60)
    client.enq_many(["leased", "ready"], headers={"k": "v"}, priority=2)
    client.enq("delayed", delay=3600)
    worker.deq(timeout=0)
    leased, ready, delayed = client.peek_messages(state=State.ALL)
    assert [message.state for message in (leased, ready, delayed)] == [State.LEASED, State.READY, State.DELAYED]
    assert (leased, ready, delayed) == (b"leased", b"ready", b"delayed")
    assert (leased.consumer, leased.attempt, ready.consumer, ready.attempt) == ("worker 7", 1, "", 0)
    assert (ready.headers, ready.priority, ready.queue, ready.id) == ({"k": "v"}, 2, "default", 2)
    assert leased.ready_time_ms > leased.enqueue_time_ms
    assert delayed.ready_time_ms - delayed.enqueue_time_ms == pytest.approx(3_600_000, abs=60_000)
    assert client.peek_messages(1, state=State.ALL) == [b"leased"]
    assert client.peek_messages(after_id=2, state=State.ALL) == [b"delayed"]


def test_peek_messages_pages_through_priorities(client: BaseClient) -> None:
    for priority in (0, 9, 0, 9, 4):
        client.enq("x", priority=priority)
    page = client.peek_messages(2)
    assert [message.id for message in page] == [2, 4]
    page = client.peek_messages(2, after_id=4, after_priority=9)
    assert [message.id for message in page] == [5, 1]
    assert [message.id for message in client.peek_messages(2, after_id=1, after_priority=0)] == [3]


def test_a_peeked_message_cannot_be_settled(client: BaseClient) -> None:
    client.enq("a")
    (message,) = client.peek_messages()
    settlings: list[Callable[[], object]] = [
        message.ack,
        message.requeue,
        message.dead_letter,
        lambda: message.extend(1),
    ]
    for settle in settlings:
        with pytest.raises(ValueError, match="not leased"):
            settle()


def test_peek_shows_many_and_large_messages(client: BaseClient) -> None:
    client.enq_many(map(str, range(5_000)))
    assert client.peek() == b",".join(str(number).encode() for number in range(5_000))
    client.enq_many([b"x" * (3 << 20)] * 3, queue="large")
    assert [len(message) for message in client.peek_messages(queue="large")] == [3 << 20] * 3


def test_purge_drops_what_is_ready_and_nothing_else(client: BaseClient, other: BaseClient) -> None:
    assert client.purge() == 0
    client.enq_many(map(str, range(5_000)))
    client.enq("late", delay=3600)
    other.deq(timeout=0)
    assert client.purge() == 4_999
    counts = other.counts()
    assert (counts.ready, counts.leased, counts.delayed) == (0, 1, 1)


def test_purge_drops_what_is_delayed(client: BaseClient, other: BaseClient) -> None:
    for number in range(30):
        client.enq(str(number), delay=3600 + 100 * (number % 7))
    client.enq_many(["a", "held", "b"])
    held = other.deq(timeout=0)
    assert held is not None
    assert client.purge(state=State.DELAYED) == 30
    counts = client.counts()
    assert (counts.ready, counts.leased, counts.delayed) == (2, 1, 0)
    client.enq("later", delay=3600)
    assert client.purge(state=State.ALL) == 3
    counts = client.counts()
    assert (counts.ready, counts.leased, counts.delayed) == (0, 1, 0)
    assert held.ack(), "a leased message stays"
    with pytest.raises(InvalidRequest, match=r"write State\.READY, State\.DELAYED or State\.ALL"):
        client.purge(state=State.LEASED)


def kill(client: BaseClient, *bodies: str, queue: str = "default", **options: object) -> None:
    """Make dead letters of some messages."""
    client.enq_many(bodies, queue=queue, **options)  # type: ignore[arg-type]
    for _ in bodies:
        message = client.deq(timeout=0, queue=queue)
        assert message is not None
        message.dead_letter("bad")


def test_redrive_moves_dead_letters_back_as_they_were(client: BaseClient) -> None:
    assert client.redrive() == 0
    kill(client, "a", "b", "c", headers={"k": "v"}, priority=3)
    assert client.redrive() == 3
    assert client.peek() == b"a,b,c"
    for message in client.peek_messages():
        assert (message.headers, message.priority) == ({"k": "v"}, 3)
    assert client.peek_messages(queue="default.dead", state=State.ALL) == []


def test_redrive_moves_at_most_as_many_as_asked(client: BaseClient) -> None:
    kill(client, "a", "b", "c")
    assert client.redrive(2) == 2
    assert client.peek() == b"a,b"
    assert client.peek(queue="default.dead") == b"c"
    assert client.redrive(5) == 1


def test_a_message_that_dies_again_can_be_redriven_again(client: BaseClient) -> None:
    for _ in range(3):
        kill(client, "a")
        assert client.redrive() == 1
        message = client.deq(timeout=0)
        assert message == b"a"
        assert message.ack()


def test_a_dead_letter_that_was_rejected_again_goes_back_to_where_it_came_from(client: BaseClient) -> None:
    kill(client, "a")
    dead = client.deq(timeout=0, queue="default.dead")
    assert dead is not None
    dead.dead_letter("not even that")
    assert client.redrive() == 1
    assert client.peek() == b"a"


def test_a_dead_letter_that_cannot_go_back_lets_those_behind_it_pass(client: BaseClient) -> None:
    client.configure(dead_letter_queue="all.dead", queue="*")
    kill(client, "a", "b", "c", queue="full")
    kill(client, "d", "e", queue="open")
    client.configure(max_messages=1, queue="full")
    with pytest.raises(
        QueueFull, match=r"^3 moved, 2 refused and still in all\.dead; the first because: queue .full"
    ) as caught:
        client.redrive(queue="all")
    assert not caught.value.is_refusal, "part of it was done"
    with pytest.raises(QueueFull, match=r"^0 moved, 2 refused") as caught:
        client.redrive(queue="all")
    assert caught.value.is_refusal
    assert (client.peek(queue="full"), client.peek(queue="open")) == (b"a", b"d,e")
    waiting = client.peek_messages(queue="all.dead", state=State.ALL)
    assert [(bytes(message), message.attempt) for message in waiting] == [(b"b", 0), (b"c", 0)]
    assert {message.state for message in waiting} == {State.READY}
    client.configure(max_messages=3, queue="full")
    assert client.redrive(queue="all", ids=[message.id for message in waiting]) == 2
    assert client.peek(queue="full") == b"a,b,c"


def test_redrive_counts_only_those_that_move(client: BaseClient) -> None:
    client.configure(dead_letter_queue="all.dead", queue="*")
    kill(client, "a", "b", queue="full")
    kill(client, "c", "d", "e", queue="open")
    client.configure(max_messages=1, queue="full")
    client.enq("x", queue="full")
    with pytest.raises(QueueFull, match=r"^2 moved, 2 refused"):
        client.redrive(2, queue="all")
    assert client.peek(queue="open") == b"c,d"
    assert client.peek(queue="all.dead") == b"a,b,e"


@pytest.mark.slow
def test_redrive_ends_after_many_refusals(client: BaseClient) -> None:
    kill(client, *map(str, range(120)))
    client.configure(max_messages=1)
    client.enq("x")
    with pytest.raises(QueueFull, match=r"^0 moved, 1\d\d refused"):
        client.redrive()
    assert client.counts(queue="default.dead").ready == 120


@pytest.mark.parametrize("queue", ["a/b", "..\n", "ä", "x" * 129])
def test_every_call_refuses_a_bad_queue_name(client: BaseClient, queue: str) -> None:
    calls: list[Callable[[], object]] = [
        lambda: client.enq("a", queue=queue),
        lambda: client.enq_many(["a"], queue=queue),
        lambda: client.deq(timeout=0, queue=queue),
        lambda: next(iter(client.consume(queue=queue))),
        lambda: client.cnt(queue=queue),
        lambda: client.counts(queue=queue),
        lambda: client.peek(queue=queue),
        lambda: client.peek_messages(queue=queue),
        lambda: client.purge(queue=queue),
        lambda: client.redrive(queue=queue),
    ]
    for call in calls:
        with pytest.raises(InvalidRequest) as refused:
            call()
        assert refused.value.reason == "BAD_QUEUE_NAME"
