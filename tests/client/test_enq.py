"""`enq` and `enq_many`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import Call, until

from stiqueue import InvalidRequest, QueueFull
from stiqueue.client.base import BaseClient
from stiqueue.limits import MESSAGE_ROOM

from .conftest import Place

MOST_BYTES = (4 << 20) - MESSAGE_ROOM


def take_all(client: BaseClient, queue: str | None = None) -> list[bytes]:
    """Take everything that is ready, in order."""
    return [bytes(message) for message in client.consume(prefetch=1000, timeout=0, queue=queue)]


@pytest.mark.parametrize(
    ("msg", "body"),
    [
        ("Grüße", "Grüße".encode()),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ba"), b"ba"),
        (memoryview(b"abcd")[1:3], b"bc"),
        ("", b""),
    ],
)
def test_a_message_is_text_or_bytes_of_any_kind(client: BaseClient, msg: Any, body: bytes) -> None:
    client.enq(msg)
    assert client.deq(timeout=0) == body


@pytest.mark.parametrize("msg", [None, 1, 1.5, ["a"], object()])
def test_anything_else_is_refused(client: BaseClient, msg: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.enq(msg)
    assert refused.value.reason == "BAD_BODY"
    assert client.cnt() == 0


def test_text_that_is_not_unicode_is_refused(client: BaseClient) -> None:
    with pytest.raises(InvalidRequest):
        client.enq("\ud800")
    with pytest.raises(InvalidRequest):
        client.enq("a", headers={"k": "\ud800"})
    with pytest.raises(InvalidRequest):
        client.enq("a", request_id="\ud800")
    assert client.cnt() == 0


def test_enq_returns_the_id(client: BaseClient) -> None:
    assert [client.enq("a"), client.enq("b"), client.enq("c")] == [1, 2, 3]
    message = client.deq(timeout=0)
    assert message is not None
    assert message.id == 1


def test_a_message_arrives_with_its_priority_and_headers(client: BaseClient) -> None:
    client.enq("low")
    client.enq("high", priority=255, headers={"trace": "1"})
    message = client.deq(timeout=0)
    assert message is not None
    assert (message, message.priority, message.headers) == (b"high", 255, {"trace": "1"})


def test_a_delayed_message_is_counted_as_delayed_and_comes_later(client: BaseClient) -> None:
    client.enq("much later", delay=3600)
    assert client.cnt() == 0
    assert client.deq(timeout=0) is None
    client.enq("late", delay=0.2)
    message = client.deq(timeout=20)
    assert message == b"late"
    assert client.counts().delayed == 1


def test_a_message_is_dropped_after_its_ttl(client: BaseClient) -> None:
    client.enq("mortal", ttl=0.01)
    until(lambda: client.counts().expired, 1)
    assert client.deq(timeout=0) is None


def test_a_repeated_request_id_enqueues_once(client: BaseClient) -> None:
    assert client.enq("a", request_id="r") == client.enq("a", request_id="r") == 1
    assert client.cnt() == 1


def test_clients_never_use_the_same_request_id_by_themselves(client: BaseClient, other: BaseClient) -> None:
    for _ in range(100):
        client.enq("a")
        other.enq("a")
    client.disconnect()
    client.enq("a")
    assert client.cnt() == 201


def test_the_queue_is_that_of_the_call_or_else_of_the_client(place: Place) -> None:
    client = place.client(queue="mine")
    client.enq("a")
    client.enq("b", queue="other")
    client.enq("c", queue="")
    assert {name: counts.ready for name, counts in client.queues().items()} == {"mine": 1, "other": 1, "default": 1}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"queue": "a/b"}, "BAD_QUEUE_NAME"),
        ({"priority": -1}, "BAD_PRIORITY"),
        ({"priority": 256}, "BAD_PRIORITY"),
        ({"priority": 0.5}, "BAD_PRIORITY"),
        ({"priority": None}, "BAD_PRIORITY"),
        ({"priority": "1"}, "BAD_PRIORITY"),
        ({"delay": -0.001}, "BAD_DURATION"),
        ({"delay": 367 * 86_400.0}, "BAD_DURATION"),
        ({"delay": float("nan")}, "BAD_DURATION"),
        ({"delay": float("inf")}, "BAD_DURATION"),
        ({"delay": 1e30}, "BAD_DURATION"),
        ({"ttl": 0.0}, "BAD_DURATION"),
        ({"ttl": float("nan")}, "BAD_DURATION"),
        ({"ttl": -1e30}, "BAD_DURATION"),
        ({"headers": {"": "x"}}, "BAD_HEADERS"),
        ({"headers": {str(number): "" for number in range(65)}}, "BAD_HEADERS"),
        ({"headers": {"k": "x" * 8192}}, "BAD_HEADERS"),
        ({"request_id": "x" * 129}, "BAD_REQUEST_ID"),
        ({"msg": b"x" * (MOST_BYTES + 1)}, "MESSAGE_TOO_LARGE"),
        ({"msg": b"x" * (5 << 20)}, "MESSAGE_TOO_LARGE"),
    ],
    ids=repr,
)
def test_bad_input_is_refused_with_its_reason_and_changes_nothing(
    client: BaseClient, options: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.enq(**{"msg": "a"} | options)
    assert refused.value.reason == reason
    assert client.queues() == {}


def test_a_delay_that_is_no_number_is_refused(client: BaseClient) -> None:
    with pytest.raises(InvalidRequest, match="delay: None is not a number of seconds"):
        client.enq("a", delay=None)  # type: ignore[arg-type]
    assert client.enq("a") == 1


def test_a_message_of_the_limit_passes_through(client: BaseClient) -> None:
    body = bytes(range(256)) * (MOST_BYTES // 256)
    client.enq(body)
    assert client.peek() == body
    assert client.deq(timeout=20) == body


def test_enq_many_takes_any_iterable_and_keeps_the_order(client: BaseClient) -> None:
    def numbers() -> Iterator[str]:
        for number in range(2_500):
            yield str(number)

    assert client.enq_many(numbers()) == 2_500
    assert take_all(client) == [str(number).encode() for number in range(2_500)]


def test_enq_many_of_nothing_enqueues_nothing(client: BaseClient) -> None:
    assert client.enq_many([]) == 0
    assert client.queues() == {}


def test_enq_many_splits_large_bodies_into_requests_that_pass(client: BaseClient) -> None:
    bodies = [bytes([number]) * size for number, size in enumerate([900_000, 900_000, 10, MOST_BYTES, 10, 2 << 20])]
    assert client.enq_many(bodies) == 6
    assert take_all(client) == bodies


def test_enq_many_gives_all_messages_the_same_properties(client: BaseClient) -> None:
    client.enq("low")
    client.enq_many(["a", b"b"], priority=7, headers={"k": "v"})
    a, b, low = client.peek_messages()
    assert [(message.priority, message.headers) for message in (a, b)] == [(7, {"k": "v"})] * 2
    assert low.headers == {}


@pytest.mark.options(max_messages=1500)
def test_enq_many_keeps_the_requests_before_the_one_that_was_refused(client: BaseClient) -> None:
    with pytest.raises(QueueFull):
        client.enq_many(map(str, range(5_000)))
    assert client.cnt() == 999


@pytest.mark.options(max_messages=1)
def test_a_full_queue_refuses_or_with_block_waits_for_room(client: BaseClient, other: BaseClient) -> None:
    client.enq("a")
    with pytest.raises(QueueFull):
        client.enq("b")
    with pytest.raises(QueueFull):
        client.enq("b", block=True, timeout=0.2)
    blocked = Call(client.enq, "b", block=True)
    assert not blocked.is_over(0.2)
    message = other.deq(timeout=0)
    assert message is not None
    assert message.ack()
    assert blocked.result() == 2
    assert client.peek() == b"b"


@pytest.mark.options(max_messages=1000)
def test_enq_many_with_block_waits_for_room(client: BaseClient, other: BaseClient) -> None:
    blocked = Call(client.enq_many, map(str, range(3_500)), block=True)
    found: list[bytes] = []
    while len(found) < 3_500:
        found += [bytes(message) for message in other.consume(prefetch=1_000, timeout=0.05)]
    assert blocked.result() == 3_500
    assert found == [str(number).encode() for number in range(3_500)]
