"""`consume`: a loop over messages, each acked when the next one is asked for."""

from __future__ import annotations

import gc

import pytest
from support.waiting import Call, until

from stiqueue import Closed, InvalidRequest
from stiqueue.client.base import BaseClient

from .conftest import Place


def test_the_loop_acks_each_message_and_ends_when_nothing_came(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abc"))
    assert [message.decode() for message in client.consume(timeout=0)] == ["a", "b", "c"]
    counts = other.counts()
    assert (counts.acked, counts.consumers) == (3, 0)


@pytest.mark.parametrize("prefetch", [1, 2, 7, 1000, 10_000])
def test_every_prefetch_delivers_everything_in_order(client: BaseClient, prefetch: int) -> None:
    client.enq_many(map(str, range(100)))
    assert [int(message) for message in client.consume(prefetch, timeout=0)] == list(range(100))
    assert client.counts().acked == 100


def test_the_loop_waits_for_messages(client: BaseClient, other: BaseClient) -> None:
    loop = client.consume()
    waiting = Call(next, loop)
    until(lambda: other.counts().consumers, 1)
    other.enq("a")
    assert waiting.result() == b"a"


def test_a_message_is_held_while_the_loop_works_on_it(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    for message in client.consume(timeout=0):
        assert other.counts().leased == 1
        assert message.attempt == 1


def test_break_gives_back_the_last_message_and_those_sent_ahead(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abcdef"))
    for message in client.consume(prefetch=4):
        if message == b"c":
            break
    gc.collect()
    until(other.peek, b"c,d,e,f")
    assert other.counts().acked == 2


def test_an_exception_gives_back_the_last_message(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("abc"))

    def work() -> None:
        for message in client.consume():
            if message == b"b":
                raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        work()
    gc.collect()
    until(other.peek, b"b,c")
    assert other.counts().acked == 1


def test_what_is_settled_by_hand_is_not_acked_again(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(["ack", "requeue", "dead", "nothing"])
    for message in client.consume(prefetch=2, timeout=0):
        if message == b"ack":
            assert message.ack() is True
        elif message == b"requeue":
            assert message.requeue(delay=3600) is True
        elif message == b"dead":
            assert message.dead_letter() is True
    counts = other.counts()
    assert (counts.acked, counts.delayed, counts.dead_lettered, counts.requeued) == (2, 1, 1, 1)


def test_what_is_settled_by_hand_before_a_break_stays_settled(client: BaseClient, other: BaseClient) -> None:
    client.enq_many(list("ab"))
    for message in client.consume():
        message.ack()
        break
    gc.collect()
    until(lambda: other.counts().consumers, 0)
    assert other.peek() == b"b"


def test_without_auto_ack_the_loop_acks_nothing(place: Place, other: BaseClient) -> None:
    client = place.client(auto_ack=False)
    other.enq_many(list("abc"))
    loop = client.consume(prefetch=3)
    a, b, c = next(loop), next(loop), next(loop)
    assert other.counts().leased == 3
    assert c.ack()
    assert a.ack()
    loop.close()  # type: ignore[attr-defined]
    until(other.peek, b"b")
    assert b.ack() is False


def test_with_no_ack_required_nothing_is_leased(place: Place, other: BaseClient) -> None:
    client = place.client(ack_required=False)
    other.enq_many(list("abc"))
    for message in client.consume(prefetch=1, timeout=0):
        assert message.ack() is False
        assert other.counts().leased == 0
    assert other.counts().acked == 3


def test_closing_the_client_ends_the_loop(client: BaseClient, other: BaseClient) -> None:
    loop = client.consume()
    waiting = Call(next, loop)
    until(lambda: other.counts().consumers, 1)
    client.close()
    with pytest.raises(Closed):
        waiting.result()


def test_two_loops_of_one_client_share_the_messages(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(map(str, range(200)))

    def work() -> list[int]:
        return [int(message) for message in client.consume(prefetch=5, timeout=0.2)]

    first, second = Call(work), Call(work)
    assert sorted(first.result() + second.result()) == list(range(200))
    until(lambda: other.counts().acked, 200)


@pytest.mark.parametrize("prefetch", [0, -1, 10_001])
def test_a_prefetch_out_of_range_is_refused(client: BaseClient, prefetch: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        next(iter(client.consume(prefetch, timeout=0)))
    assert refused.value.reason == "BAD_LIMIT"


def test_a_slow_loop_acks_in_time(place: Place, other: BaseClient) -> None:
    client = place.client(ack_timeout=30)
    other.enq_many(list("abc"))
    loop = client.consume(prefetch=1)
    next(loop)
    next(loop)
    until(lambda: other.counts().acked, 1)
