"""Attempts as handlers see them: what was sent ahead and never handed out was not tried."""

from __future__ import annotations

import pytest
from support.waiting import until

from stiqueue import State
from stiqueue.client.base import BaseClient

from .conftest import Place

LETTERS = [*"abcdefghij"]


def attempts(client: BaseClient) -> list[tuple[str, int]]:
    """Return the messages and their attempts so far, once nothing is leased."""
    until(lambda: client.counts().leased, 0)
    return [(message.decode(), message.attempt) for message in client.peek_messages(state=State.ALL)]


@pytest.mark.options(max_attempts=3)
@pytest.mark.parametrize("by_hand", [True, False], ids=["acks one by hand", "acks one by asking for the next"])
def test_what_a_loop_leaves_is_no_dead_letter(place: Place, other: BaseClient, by_hand: bool) -> None:
    other.enq_many(LETTERS)
    for number, body in enumerate(LETTERS[:3]):
        loop = place.client().consume(prefetch=10)
        message = next(loop)
        assert (message.decode(), message.attempt) == (body, 1 if by_hand or number == 0 else 2)
        if by_hand:
            assert message.ack()
        else:
            next(loop)
        loop.close()  # type: ignore[attr-defined]
        begun = 0 if by_hand else 1
        assert attempts(other) == [(each, begun * (at == 0)) for at, each in enumerate(LETTERS[number + 1 :])]
    assert other.counts().dead_lettered == 0


@pytest.mark.options(max_attempts=1)
@pytest.mark.parametrize("prefetch", [1, 10])
def test_what_came_one_by_one_while_a_loop_was_at_work_was_not_tried(
    place: Place, other: BaseClient, prefetch: int
) -> None:
    other.enq("a")
    loop = place.client().consume(prefetch=prefetch)
    message = next(loop)
    for body in LETTERS[1:]:
        other.enq(body)
    until(lambda: other.counts().leased, prefetch if place.port else 1)  # a local loop takes more when it asks
    assert message.ack()
    loop.close()  # type: ignore[attr-defined]
    assert attempts(other) == [(body, 0) for body in LETTERS[1:]]
    assert other.counts().dead_lettered == 0


def test_without_auto_ack_all_that_was_handed_out_was_tried(place: Place, other: BaseClient) -> None:
    client = place.client(auto_ack=False)
    other.enq_many(LETTERS[:5])
    loop = client.consume(prefetch=5)
    first, _, third = (next(loop) for _ in range(3))
    assert first.ack()
    assert third.requeue(3_600)
    loop.close()  # type: ignore[attr-defined]
    assert attempts(other) == [("b", 1), ("d", 0), ("e", 0), ("c", 1)]


def test_a_client_that_loses_its_connection_counts_the_message_it_was_at(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(["a", "b", "c"])
    loop = client.consume(prefetch=3)
    next(loop)
    next(loop)
    until(lambda: other.counts().acked, 1)
    client.disconnect()
    assert attempts(other) == [("b", 1), ("c", 0)]


def test_a_message_can_be_given_back_untouched(client: BaseClient, other: BaseClient) -> None:
    other.enq("a")
    message = client.deq(timeout=10)
    assert message is not None
    assert message.requeue(untouched=True) is True
    assert attempts(other) == [("a", 0)]
    message = client.deq(timeout=10)
    assert message is not None
    assert message.attempt == 1


@pytest.mark.options(max_attempts=1)
def test_the_message_at_which_a_loop_fails_was_tried(client: BaseClient, other: BaseClient) -> None:
    other.enq_many(["a", "b", "c"])

    def fail() -> None:
        for message in client.consume(prefetch=3):
            if message == b"b":
                raise RuntimeError("cannot do it")

    with pytest.raises(RuntimeError):
        fail()
    until(lambda: other.peek(queue="default.dead"), b"b")
    assert attempts(other) == [("c", 0)]
