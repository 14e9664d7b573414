"""Single messages by their ids, through every client and over the wire."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from support.waiting import soon, until
from support.wire import drain, refused

from stiqueue import AsyncSQClient, LocalSQClient, MessageLeased, SQClient, SQServer, State
from stiqueue.client.base import BaseClient
from stiqueue.errors import InvalidRequest
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

SECONDS = 20.0


@pytest.fixture(params=["server", "server on a file", "local", "local on a file"])
def any_client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BaseClient]:
    data = str(tmp_path / "queue.db") if "file" in request.param else None
    if request.param.startswith("local"):
        with LocalSQClient(data) as local:
            yield local
    else:
        with SQServer(port=0, data=data) as server, SQClient(port=server.port) as client:
            yield client


def bodies(client: BaseClient) -> list[bytes]:
    return [bytes(message) for message in client.peek_messages(state=State.ALL)]


def test_a_message_is_taken_from_the_middle_and_settled(any_client: BaseClient) -> None:
    ids = [any_client.enq(body) for body in "abc"]
    message = any_client.take(ids[1])
    assert message == b"b"
    assert message is not None
    assert (message.id, message.queue) == (ids[1], "default")
    assert any_client.cnt() == 2
    assert message.ack() is True
    assert message.ack() is False
    assert any_client.take(ids[1]) is None
    assert bodies(any_client) == [b"a", b"c"]


@pytest.mark.parametrize("how", ["requeue", "dead_letter", "dropped", "extended"])
def test_what_else_becomes_of_it(any_client: BaseClient, how: str) -> None:
    message_id = any_client.enq("a")
    any_client.enq("b")
    message = any_client.take(message_id)
    assert message is not None
    if how == "requeue":
        assert message.requeue(0) is True
    elif how == "dead_letter":
        assert message.dead_letter("wrong") is True
        until(lambda: any_client.cnt(queue="default.dead"), 1)
        return
    elif how == "extended":
        assert message.extend(60) is True
        assert message.requeue(0) is True
    del message
    gc.collect()
    until(lambda: any_client.peek(), b"a,b")
    (first, _) = any_client.peek_messages()
    assert first.attempt == 0


def test_a_message_that_somebody_holds_is_not_taken(any_client: BaseClient) -> None:
    message_id = any_client.enq("a")
    message = any_client.take(message_id)
    for call in (any_client.take, any_client.replace):
        with pytest.raises(MessageLeased, match=f"message {message_id} of default is leased"):
            call(message_id)
    with pytest.raises(MessageLeased):
        any_client.reschedule(message_id, 5)
    assert any_client.cancel(message_id) == 0
    assert message is not None
    assert message.ack()


def test_messages_are_cancelled(any_client: BaseClient) -> None:
    ids = [any_client.enq(body, delay=60 * (body in "bc")) for body in "abcd"]
    assert any_client.cancel(ids[0], ids[2], 1000, ids[0]) == 2
    assert any_client.cancel(ids[0], ids[2]) == 0
    assert any_client.cancel() == 0
    assert bodies(any_client) == [b"d", b"b"]
    assert any_client.cancel(*ids, queue="other") == 0


def test_more_are_cancelled_than_a_request_names(any_client: BaseClient) -> None:
    any_client.enq_many(map(str, range(10_100)))
    assert any_client.cancel(*range(1, 10_051)) == 10_050
    assert len(bodies(any_client)) == 50


def test_a_reminder_is_rescheduled(any_client: BaseClient) -> None:
    message_id = any_client.enq("a", delay=3600, headers={"to": "ann"})
    assert any_client.reschedule(message_id, 7200) is True
    (message,) = any_client.peek_messages(state=State.DELAYED)
    assert (message.id, message.headers, message.attempt) == (message_id, {"to": "ann"}, 0)
    assert 7_100_000 < message.ready_time_ms - time.time() * 1000 < 7_300_000
    assert any_client.reschedule(message_id, 0) is True
    assert any_client.deq(timeout=0) == b"a"
    any_client.ack()
    assert any_client.reschedule(message_id, 0) is False


def test_a_message_is_replaced(any_client: BaseClient) -> None:
    first = any_client.enq("a", headers={"n": "1"}, priority=3)
    any_client.enq("b")
    second = any_client.replace(first, "A", delay=60)
    assert second is not None
    (message,) = any_client.peek_messages(state=State.DELAYED)
    assert (message, message.id, message.headers, message.priority) == (b"A", second, {"n": "1"}, 3)
    third = any_client.replace(second, priority=0, headers={"n": "2"})
    assert any_client.replace(first, "x") is None
    (_, message) = any_client.peek_messages()
    assert (message, message.id, message.headers, message.priority) == (b"A", third, {"n": "2"}, 0)


def test_what_replaces_a_message_has_its_keys(any_client: BaseClient) -> None:
    any_client.enq("one", key="ann")
    second = any_client.enq("two", key="ann", unique_key="u")
    assert any_client.deq(timeout=0) == b"one"
    new_id = any_client.replace(second, "two, corrected")
    assert new_id is not None
    with pytest.raises(MessageLeased):
        any_client.replace(new_id - 2, "held")
    assert any_client.enq("two", unique_key="u") == new_id
    (waiting,) = any_client.peek_messages()
    assert (waiting, waiting.key, waiting.unique_key, waiting.blocked) == (b"two, corrected", "ann", "u", True)


def test_a_replacement_that_is_refused_leaves_the_message(any_client: BaseClient) -> None:
    message_id = any_client.enq("a")
    with pytest.raises(InvalidRequest):
        any_client.replace(message_id, "b", priority=256)
    with pytest.raises(InvalidRequest):
        any_client.replace(message_id, 5)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        any_client.reschedule(message_id, -1)
    gc.collect()
    until(lambda: bodies(any_client), [b"a"])
    assert any_client.counts().leased == 0


def test_chosen_dead_letters_are_redriven(any_client: BaseClient) -> None:
    for body in "abc":
        any_client.enq(body)
        message = any_client.deq()
        assert message.dead_letter()
    until(lambda: any_client.cnt(queue="default.dead"), 3)
    ids = [message.id for message in any_client.peek_messages(queue="default.dead")]
    assert any_client.redrive(ids=[ids[2], ids[0], 77]) == 2
    assert any_client.peek() == b"c,a"
    assert any_client.peek(queue="default.dead") == b"b"
    assert any_client.redrive(ids=[]) == 0


@pytest.mark.slow
def test_messages_with_a_key_are_found_in_the_file(tmp_path: Path) -> None:
    """After a restart the file alone has most of them: those of 300 keys, and those behind others of their key."""
    data = tmp_path / "queue.db"
    with SQServer(port=0, data=data) as server, SQClient(port=server.port) as client:
        for number in range(900):
            client.enq_soon(str(number), key=f"k{number % 300}", priority=number % 2)
        client.flush()
    with SQServer(port=0, data=data) as server, SQClient(port=server.port) as client:
        ids = {int(message): message.id for message in client.peek_messages()}
        for number in (899, 599, 450, 250):
            message = client.take(ids[number])
            assert message is not None
            assert (int(message), message.key) == (number, f"k{number % 300}")
            with pytest.raises(MessageLeased):
                client.take(message.id)
            assert ids[number] not in {each.id for each in client.peek_messages()}
            assert message.ack()
            assert client.take(message.id) is None
        assert client.cancel(ids[898], ids[297], ids[899]) == 2
        assert client.replace(ids[598], "1598")
        assert client.reschedule(ids[597], 3_600)
        left = set(ids) - {899, 599, 450, 250, 898, 297, 598, 597} | {1598}
        assert {int(message) for message in client.peek_messages()} == left
        assert (client.cnt(), client.counts().delayed) == (len(left), 1)
        taken: list[tuple[str, int, int]] = []
        while (message := client.deq(timeout=0)) is not None:
            taken.append((message.key, -message.priority, message.id))
    assert len(taken) == len(left)
    of_keys = [[place for place in taken if place[0] == key] for key in {key for key, _, _ in taken}]
    assert all(each == sorted(each) for each in of_keys), "in order within each key"


@pytest.mark.parametrize("message_id", [0, -1, 2**64, "5", 1.5, None, True])
def test_an_id_that_is_none_is_refused(any_client: BaseClient, message_id: Any) -> None:
    for call in (any_client.take, any_client.cancel, any_client.replace):
        with pytest.raises(InvalidRequest, match=r"^ids: ") as caught:
            call(message_id)
        assert caught.value.reason == "BAD_IDS"


def test_a_message_is_taken_for_as_long_as_the_client_says(server: SQServer, client: SQClient) -> None:
    client.configure(ack_timeout=0.2)
    message_id = client.enq("a")
    with SQClient(port=server.port, ack_timeout=3600.0) as patient:
        message = patient.take(message_id)
        time.sleep(1.0)
        assert message is not None
        assert message.ack() is True
    message_id = client.enq("b")
    client.configure(ack_timeout=3600.0)
    with SQClient(port=server.port, ack_timeout=0.2) as hasty:
        assert hasty.take(message_id) == b"b"
        until(lambda: client.counts().ready, 1)


def test_tasks_have_the_same_methods(server: SQServer) -> None:
    async def work() -> None:
        async with AsyncSQClient(port=server.port) as client:
            ids = [await client.enq(body) for body in "abcde"]
            assert await client.cancel(ids[0]) == 1
            assert await client.reschedule(ids[1], 60)
            await client.replace(ids[2], "C")
            message = await client.take(ids[3])
            assert message is not None
            with pytest.raises(MessageLeased):
                await client.take(ids[3])
            assert await message.ack()
            assert await client.take(ids[3]) is None
            dropped = await client.take(ids[4])
            assert dropped == b"e"
            del dropped
            gc.collect()
            await soon(client.cnt, 2)
            assert await client.peek() == b"e,C"

    asyncio.run(work())


def test_closing_the_client_gives_back_what_it_took(server: SQServer, client: SQClient) -> None:
    message_id = client.enq("a")
    with SQClient(port=server.port) as other:
        assert other.take(message_id) == b"a"
        taken = other.take(client.enq("b"))
    assert taken == b"b"
    until(lambda: client.peek(), b"a,b")
    assert [message.attempt for message in client.peek_messages()] == [0, 0]


def test_a_server_that_forgets_what_it_sends_leases_these(tmp_path: Path) -> None:
    with SQServer(port=0, ack_required=False) as server, SQClient(port=server.port) as client:
        message_id = client.enq("a")
        message = client.take(message_id)
        assert message is not None
        assert message.lease_id
        assert client.reschedule(client.enq("b"), 60)
        assert message.requeue(0)
        assert client.counts().delayed == 1


def asked(*ids: int, **more: Any) -> pb.DeqRequest:
    return pb.DeqRequest(ids=ids, prefetch=100, **more)


def test_over_the_wire_the_first_response_says_which_are_leased(client: SQClient, stub: QueueServiceStub) -> None:
    client.enq_many(list("abc"))
    held = client.deq()
    stream: Any = stub.Deq(asked(1, 3, 9), timeout=SECONDS)
    response = next(stream)
    assert list(response.leased_ids) == [1]
    assert [message.body for message in response.messages] == [b"c"]
    stub.Ack(pb.AckRequest(lease_ids=[response.messages[0].lease_id]), timeout=SECONDS)
    assert list(stream) == []
    (alone,) = stub.Deq(asked(1), timeout=SECONDS)
    assert (list(alone.leased_ids), list(alone.messages)) == ([1], [])
    assert drain(stub.Deq(asked(9), timeout=SECONDS)) == []
    assert held == b"a"


@pytest.mark.parametrize(
    "request_",
    [asked(0), asked(*range(1, 10_002)), asked(5, 0)],
    ids=["0", "10,001", "0 among others"],
)
def test_bad_ids_are_refused(client: SQClient, stub: QueueServiceStub, request_: pb.DeqRequest) -> None:
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_IDS"):
        drain(stub.Deq(request_, timeout=SECONDS))
    assert client.queues() == {}


def test_wait_does_not_make_it_wait(client: SQClient, stub: QueueServiceStub) -> None:
    client.enq("a", delay=60)
    assert drain(stub.Deq(asked(7, wait=Duration(seconds=60)), timeout=SECONDS)) == []
