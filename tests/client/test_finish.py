"""`finish` of a loop over messages: nothing more is taken, and what was handed out can still be settled."""

from __future__ import annotations

from itertools import islice

import pytest
from support.ports import free_port
from support.waiting import Call, until

from stiqueue import SQClient, SQServer, Unavailable
from stiqueue.client.base import BaseClient

from .conftest import Place


@pytest.fixture
def by_hand(place: Place) -> BaseClient:
    """A client that settles by hand alone."""
    return place.client(auto_ack=False)


def test_what_was_sent_ahead_goes_back_at_once(by_hand: BaseClient, other: BaseClient) -> None:
    other.enq_many(list("abcdef"))
    loop = by_hand.consume(prefetch=4)
    held = list(islice(loop, 2))
    until(lambda: other.counts().leased, 4)
    loop.finish()
    until(other.peek, b"c,d,e,f")  # although nobody asks the loop for the next one
    rest = Call(list, loop)
    assert [message.attempt for message in other.peek_messages()] == [0, 0, 0, 0]
    assert not rest.is_over()
    assert [message.ack() for message in held] == [True, True]
    assert rest.result() == []
    counts = other.counts()
    assert (counts.acked, counts.leased, counts.consumers) == (2, 0, 0)


def test_a_loop_that_holds_nothing_ends(by_hand: BaseClient, other: BaseClient) -> None:
    other.enq("a")
    loop = by_hand.consume()
    next(loop).ack()
    rest = Call(list, loop)
    loop.finish()
    other.enq("b")
    assert rest.result() == []
    until(other.peek, b"b")


def test_a_loop_that_never_began_ends(by_hand: BaseClient, other: BaseClient) -> None:
    other.enq("a")
    loop = by_hand.consume()
    loop.finish()
    assert list(loop) == []
    assert other.counts().consumers == 0


def test_a_loop_that_waits_ends(by_hand: BaseClient, other: BaseClient) -> None:
    loop = by_hand.consume()
    rest = Call(list, loop)
    until(lambda: other.counts().consumers, 1)
    loop.finish()
    assert rest.result() == []


def test_the_loop_acks_its_last_message(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(list("abc"))
    seen = []
    loop = client.consume(prefetch=2)
    for message in loop:
        seen.append(message)
        loop.finish()
    assert seen == [b"a"]
    until(other.peek, b"b,c")
    assert other.counts().acked == 1


def test_nobody_else_waits_for_a_loop_that_finishes(by_hand: BaseClient, other: BaseClient) -> None:
    """Messages go to others while this loop still holds one."""
    other.enq_many(list("ab"))
    loop = by_hand.consume(prefetch=1)
    held = next(loop)
    loop.finish()
    rest = Call(list, loop)
    assert other.deq(timeout=5) == b"b"
    assert held.ack()
    assert rest.result() == []


def test_a_loop_without_resume_ends_with_its_connection() -> None:
    port = free_port()
    with SQClient(port=port, auto_ack=False) as client:
        with SQServer(port=port):
            client.enq("a")
            loop = client.consume(resume=False)
            assert next(loop) == b"a"
            waiting = Call(next, loop)
        with pytest.raises(Unavailable):
            waiting.result()


def test_a_loop_without_resume_waits_for_its_server() -> None:
    port = free_port()
    with SQClient(port=port, auto_ack=False) as client:
        waiting = Call(next, client.consume(resume=False))
        with SQServer(port=port):
            client.enq("a")
            assert waiting.result() == b"a"
