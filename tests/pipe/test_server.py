"""A pipe as any client may use it, by the generated stub."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.waiting import PATIENCE, Call, until

from stiqueue import SQClient, SQServer
from stiqueue.server.pipe import MOST_UNANSWERED
from stiqueue.v1 import pipe_pb2 as pb
from stiqueue.v1 import pipe_pb2_grpc
from stiqueue.v1.queue_pb2 import AckRequest, CntRequest, DeqRequest, EnqRequest
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub


class Pipe:
    """A pipe of a client that says what ours would not."""

    def __init__(self, channel: grpc.Channel, metadata: Any = None) -> None:
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        stub = pipe_pb2_grpc.PipeServiceStub(channel)
        self.call = stub.Pipe(iter(self._requests.get, None), metadata=metadata)
        self._number = 0

    def send(self, **request: Any) -> int:
        self._number += 1
        self._requests.put(pb.PipeRequest(number=self._number, **request))
        return self._number

    def send_raw(self, request: pb.PipeRequest) -> None:
        self._requests.put(request)

    def ask(self, **request: Any) -> pb.PipeResponse:
        number = self.send(**request)
        response: pb.PipeResponse = next(self.call)
        assert response.number == number
        return response

    def end(self) -> None:
        """Send nothing more."""
        self._requests.put(None)


@pytest.fixture
def pipe(channel: grpc.Channel) -> Iterator[Pipe]:
    pipe = Pipe(channel)
    yield pipe
    pipe.end()
    pipe.call.cancel()


def test_each_request_means_what_its_call_means(pipe: Pipe, channel: grpc.Channel) -> None:
    assert pipe.ask(enq=EnqRequest(bodies=[b"a", b"b"])).enq.first_id == 1
    assert pipe.ask(cnt=CntRequest(queues=["default"])).cnt.queues[0].ready == 2
    stream = QueueServiceStub(channel).Deq(DeqRequest())
    (message,) = next(stream).messages
    answer = pipe.ask(ack=AckRequest(lease_ids=[message.lease_id], take_next=True)).ack
    assert [each.body for each in answer.messages] == [b"b"]
    assert list(pipe.ask(ack=AckRequest(lease_ids=[message.lease_id])).ack.stale_lease_ids) == [message.lease_id]
    stream.cancel()


def test_a_repeated_request_id_is_recognised_across_pipes_and_calls(pipe: Pipe, channel: grpc.Channel) -> None:
    request = EnqRequest(bodies=[b"a"], request_id="r")
    assert not pipe.ask(enq=request).enq.duplicate
    assert pipe.ask(enq=request).enq.duplicate
    assert QueueServiceStub(channel).Enq(request, timeout=PATIENCE).duplicate


def test_an_error_answers_its_request_and_leaves_the_pipe_open(pipe: Pipe) -> None:
    refused = pipe.ask(enq=EnqRequest(queue="a b", bodies=[b"a"]))
    assert refused.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert refused.error.reason == "BAD_QUEUE_NAME"
    assert "a b" in refused.error.message
    assert pipe.ask(ack=AckRequest()).error.reason == "EMPTY_BATCH"
    assert pipe.ask().error.reason == "BAD_PIPE_REQUEST"
    assert pipe.ask(enq=EnqRequest(bodies=[b"a"])).enq.first_id == 1


def test_what_cannot_be_parsed_ends_its_pipe_and_no_other(channel: grpc.Channel, pipe: Pipe) -> None:
    raw = channel.stream_stream("/stiqueue.v1.PipeService/Pipe")
    with pytest.raises(grpc.RpcError):
        list(raw(iter([b"\xff\xff\xff"]), timeout=PATIENCE))
    assert pipe.ask(enq=EnqRequest(bodies=[b"a"])).enq.first_id == 1


def test_a_client_that_ends_its_side_gets_all_answers(pipe: Pipe) -> None:
    numbers = [pipe.send(enq=EnqRequest(bodies=[b"a"])) for _ in range(100)]
    pipe.end()
    assert sorted(response.number for response in pipe.call) == numbers
    assert pipe.call.code() is grpc.StatusCode.OK


def test_requests_are_begun_in_order_and_answered_when_they_are_done(tmp_path: Path) -> None:
    """Messages of one pipe that a data file takes have rising ids, in the order in which they were sent."""
    with (
        SQServer(port=0, data=tmp_path / "q.db") as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        pipe = Pipe(channel)
        numbers = [pipe.send(enq=EnqRequest(bodies=[b"a"])) for _ in range(500)]
        answers = {response.number: response.enq.first_id for _, response in zip(numbers, pipe.call, strict=False)}
        assert [answers[number] for number in numbers] == list(range(1, 501))
        pipe.end()


@pytest.mark.slow
def test_a_client_that_does_not_read_is_read_no_further(
    server: SQServer, client: SQClient, channel: grpc.Channel
) -> None:
    """It gets no more memory than its unanswered requests take; others do not notice."""
    pipe = Pipe(channel)
    many = 10 * MOST_UNANSWERED
    for _ in range(many):
        pipe.send(cnt=CntRequest(queues=["q" * 100] * 10))
    for number in range(1, 101):
        assert client.enq("a") == number
    pipe.end()
    assert sum(1 for _ in pipe.call) == many, "each was answered once it read"


@pytest.mark.slow
@pytest.mark.parametrize("number", [5_000, pytest.param(100_000, marks=pytest.mark.soak)])
def test_malformed_requests_by_the_thousand_hurt_nobody(number: int, pipe: Pipe, client: SQClient) -> None:
    flood = Call(lambda: [pipe.send_raw(pb.PipeRequest()) for _ in range(number)])
    for each in range(1, 101):
        assert client.enq("a") == each
    flood.result()
    for _ in range(number):
        assert next(pipe.call).error.reason == "BAD_PIPE_REQUEST"


@pytest.mark.parametrize("data", [None, "q.db"])
def test_a_server_that_stops_answers_what_it_has_read(data: str | None, tmp_path: Path) -> None:
    file = None if data is None else tmp_path / data
    with SQServer(port=0, data=file) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        pipe = Pipe(channel)
        assert pipe.ask(enq=EnqRequest(bodies=[b"a"])).enq.first_id == 1
        server.stop()
        with pytest.raises(grpc.RpcError) as raised:
            next(pipe.call)
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        pipe.end()


def test_acks_are_honoured_while_the_server_stops(server: SQServer, channel: grpc.Channel) -> None:
    pipe = Pipe(channel)
    pipe.ask(enq=EnqRequest(bodies=[b"a"]))
    stream = QueueServiceStub(channel).Deq(DeqRequest())
    (message,) = next(stream).messages
    stopping = threading.Thread(target=server.stop, args=(PATIENCE,))
    stopping.start()
    until(lambda: pipe.ask(enq=EnqRequest(bodies=[b"b"])).error.reason, "SHUTTING_DOWN")
    assert not pipe.ask(ack=AckRequest(lease_ids=[message.lease_id])).ack.stale_lease_ids
    stopping.join(PATIENCE)
    assert not stopping.is_alive()
    pipe.end()


def test_there_may_be_as_many_pipes_as_consumers() -> None:
    with (
        SQServer(port=0, max_consumers=1) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        pipe = Pipe(channel)
        pipe.ask(cnt=CntRequest())
        with pytest.raises(grpc.RpcError) as raised:
            next(Pipe(channel).call)
        assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        with SQClient(port=server.port) as client:
            assert client.enq("a") == 1, "a client makes calls instead"
            assert client.deq() == b"a", "pipes keep no consumer out"
        pipe.end()
        list(pipe.call)


def test_rights_are_checked_for_each_request_and_a_revoked_token_ends_the_pipe(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens"
    tokens.write_text("0123456789abcdef enq jobs\nfedcba9876543210 admin\n")
    tokens.chmod(0o600)
    with SQServer(port=0, tokens=tokens) as server, grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        with pytest.raises(grpc.RpcError) as raised:
            next(Pipe(channel).call)
        assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED  # type: ignore[attr-defined]
        pipe = Pipe(channel, metadata=[("authorization", "Bearer 0123456789abcdef")])
        assert pipe.ask(enq=EnqRequest(queue="jobs", bodies=[b"a"])).enq.first_id == 1
        denied = grpc.StatusCode.PERMISSION_DENIED.value[0]
        assert pipe.ask(enq=EnqRequest(queue="other", bodies=[b"a"])).error.code == denied
        assert pipe.ask(cnt=CntRequest()).error.code == denied
        assert pipe.ask(ack=AckRequest(lease_ids=["x"])).error.code == denied
        tokens.write_text("fedcba9876543210 admin\n")
        with pytest.raises(grpc.RpcError):
            next(pipe.call)
        with SQClient(port=server.port, token="fedcba9876543210") as client:
            assert client.queues().keys() == {"jobs"}
        pipe.end()
