"""`enq_soon` and `flush`."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support.waiting import Call

from stiqueue import Closed, InvalidRequest, QueueFull
from stiqueue.client.base import BaseClient

from .conftest import Place
from .test_enq import MOST_BYTES, take_all


@pytest.mark.slow
def test_the_future_has_the_id_and_messages_keep_their_order(client: BaseClient) -> None:
    futures = [client.enq_soon(str(number)) for number in range(2_500)]
    client.flush()
    assert [future.result(20) for future in futures] == list(range(1, 2_501))
    assert take_all(client) == [str(number).encode() for number in range(2_500)]


def test_large_and_small_messages_of_any_options_keep_their_order(client: BaseClient) -> None:
    bodies = [bytes([number]) * (1 if number % 5 else 700_000) for number in range(1, 40)]
    for number, body in enumerate(bodies):
        client.enq_soon(body, headers={"number": str(number // 3)} if number % 2 else None)
    client.flush()
    messages = list(client.consume(prefetch=100, timeout=0))
    assert [bytes(message) for message in messages] == bodies
    assert [message.headers.get("number") for message in messages] == [
        str(number // 3) if number % 2 else None for number in range(len(bodies))
    ]


def test_it_has_the_options_of_enq(client: BaseClient) -> None:
    headers = {"a": "1"}
    first = client.enq_soon("low", queue="jobs", headers=headers, request_id="me")
    headers["a"] = "2"
    again = client.enq_soon("low", queue="jobs", request_id="me")
    client.enq_soon("high", queue="jobs", priority=9, ttl=60)
    client.enq_soon("later", queue="jobs", delay=60)
    client.flush()
    assert first.result(0) == again.result(0)
    taken = list(client.consume(prefetch=10, timeout=0, queue="jobs"))
    assert taken == [b"high", b"low"]
    assert (taken[0].priority, taken[1].headers) == (9, {"a": "1"})
    assert client.counts(queue="jobs").delayed == 1


def test_several_threads_each_keep_their_order(client: BaseClient) -> None:
    def produce(name: str) -> None:
        for number in range(500):
            client.enq_soon(f"{name} {number}")

    calls = [Call(produce, name) for name in "abcd"]
    for call in calls:
        call.result()
    client.flush()
    taken = [body.decode().split() for body in take_all(client)]
    for name in "abcd":
        assert [int(number) for sender, number in taken if sender == name] == list(range(500))


@pytest.mark.options(max_messages=3)
def test_what_is_refused_fails_alone_and_flush_raises_the_first(
    client: BaseClient, other: BaseClient, caplog: pytest.LogCaptureFixture
) -> None:
    futures = [client.enq_soon(str(number)) for number in range(6)]
    with pytest.raises(QueueFull), caplog.at_level(logging.WARNING):
        client.flush()
    assert [future.exception(0) is None for future in futures] == [True] * 3 + [False] * 3
    assert caplog.text.count("2 messages of enq_soon are not confirmed: queue 'default' has 3") == 1
    client.flush()  # each failure is told once
    assert take_all(other) == [b"0", b"1", b"2"]
    assert client.enq_soon("again").result(20) == 4


def test_a_message_that_is_too_large_does_not_harm_its_neighbours(client: BaseClient) -> None:
    futures = [client.enq_soon(body) for body in (b"a", b"x" * (MOST_BYTES + 1), b"b")]
    assert isinstance(futures[1].exception(20), InvalidRequest)
    client.flush()  # the user knows of it
    assert take_all(client) == [b"a", b"b"]


@pytest.mark.parametrize(
    ("msg", "options"), [(None, {}), ("a", {"priority": 256}), ("a", {"headers": 1}), ("a", {"timeout": -1})]
)
def test_a_wrong_argument_is_refused_at_once(client: BaseClient, msg: Any, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        client.enq_soon(msg, **options)
    client.flush()
    assert client.cnt() == 0


def test_close_waits_and_a_closed_client_takes_nothing(place: Place, other: BaseClient) -> None:
    client = place.client()
    futures = [client.enq_soon(str(number)) for number in range(300)]
    client.close()
    assert [future.result(0) for future in futures] == list(range(1, 301))
    with pytest.raises(Closed):
        client.enq_soon("late")
    client.flush()
    assert other.cnt() == 300


def test_disconnect_waits_and_the_client_goes_on(client: BaseClient) -> None:
    first = client.enq_soon("a")
    client.disconnect()
    assert first.result(0) == 1
    client.enq_soon("b")
    client.flush()
    assert take_all(client) == [b"a", b"b"]


@pytest.mark.options(max_messages=1)
def test_close_raises_what_nobody_knows_of(place: Place) -> None:
    client = place.client()
    client.enq_soon("a")
    client.enq_soon("b")
    with pytest.raises(QueueFull):
        client.close()
    client.close()


@pytest.mark.options(max_messages=1)
def test_close_does_not_raise_what_somebody_knows_of(place: Place) -> None:
    client = place.client()
    client.enq_soon("a")
    assert isinstance(client.enq_soon("b").exception(20), QueueFull)
    client.close()


@pytest.mark.options(max_messages=1)
def test_after_an_exception_a_with_block_logs_failures(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    def produce() -> None:
        with place.client() as client:
            client.enq_soon("a")
            client.enq_soon("b")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), caplog.at_level(logging.WARNING):
        produce()
    assert "1 messages of enq_soon are not confirmed" in caplog.text


def test_a_window_of_one_confirms_each_before_the_next(place: Place) -> None:
    client = place.client(window=1)
    futures = []
    for number in range(50):
        futures.append(client.enq_soon(str(number)))
        assert all(future.result(20) for future in futures[:-1])
    client.flush()
    assert take_all(client) == [str(number).encode() for number in range(50)]
