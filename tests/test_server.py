"""`SQServer`: starting, serving several consumers, and stopping."""

from __future__ import annotations

import asyncio
import gc
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from support.ports import free_port
from support.waiting import Call, until
from support.wire import drain, refused

from stiqueue import ServerError, SQClient, SQServer, State, StiQueueError, TooManyConsumers, Unavailable
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

SECONDS = 20.0
MIB = 1 << 20


def connect(server: SQServer, stack: ExitStack) -> QueueServiceStub:
    """Return a stub on a connection of its own."""
    options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
    channel = stack.enter_context(grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options))
    return QueueServiceStub(channel)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


# -- starting ---------------------------------------------------------------------------------------------------------


def test_port_0_picks_a_free_port() -> None:
    with SQServer(port=0) as first, SQServer(port=0) as second:
        assert first.port != second.port
        with SQClient(port=first.port) as one, SQClient(port=second.port) as two:
            assert one.cnt() == two.cnt() == 0


def test_a_port_in_use_is_an_error_and_the_first_server_goes_on(server: SQServer, client: SQClient) -> None:
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{server.port}: Address already in use"):
        SQServer(port=server.port).start()
    client.enq("a")
    assert client.peek() == b"a"


def test_an_address_of_another_machine_is_an_error() -> None:
    with pytest.raises(OSError, match=r"cannot listen on 192\.0\.2\.1:0: "):
        SQServer(host="192.0.2.1", port=0).start()


def test_the_server_says_where_it_is_and_where_messages_live(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stiqueue")
    with SQServer(port=0) as server:
        (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("StiQueue ")
    assert f"127.0.0.1:{server.port}" in line
    assert "in memory" in line


def test_a_server_that_others_can_reach_warns_once(caplog: pytest.LogCaptureFixture) -> None:
    with SQServer(host="0.0.0.0", port=0) as server, SQClient(port=server.port) as client:
        client.cnt()
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "0.0.0.0 is reachable from other machines" in warning.getMessage()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_a_server_on_this_machine_alone_warns_of_nothing(caplog: pytest.LogCaptureFixture, host: str) -> None:
    if host == "::1" and not socket.has_ipv6:
        pytest.skip("this Python has no IPv6")
    try:
        with SQServer(host=host, port=0) as server, SQClient(host=host, port=server.port) as client:
            client.cnt()
    except OSError:
        if host == "::1":
            pytest.skip("this machine has no IPv6")
        raise
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_host_none_is_the_name_of_this_machine() -> None:
    assert SQServer(host=None).host == socket.gethostname()


def test_the_server_logs_to_the_logger_it_is_given() -> None:
    logger = logging.getLogger("tests.server")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    with SQServer(port=0, logger=logger):
        pass
    logger.removeHandler(handler)
    assert lines[0].startswith("StiQueue ")
    assert lines[1:] == ["stopping: no consumer holds a message", "stopped"]


# -- serving ----------------------------------------------------------------------------------------------------------


def test_a_consumer_learns_that_it_is_subscribed_before_there_is_a_message(stub: QueueServiceStub) -> None:
    call: Any = stub.Deq(pb.DeqRequest())
    assert "stiqueue-version" in dict(call.initial_metadata())
    call.cancel()


@pytest.fixture
def few(stack: ExitStack) -> SQServer:
    """A server that allows two consumers."""
    return stack.enter_context(SQServer(port=0, max_consumers=2))


def test_one_consumer_too_many_is_refused_until_another_leaves(few: SQServer, stack: ExitStack) -> None:
    stub = connect(few, stack)
    calls: list[Any] = [stub.Deq(pb.DeqRequest()) for _ in range(2)]
    for call in calls:
        call.initial_metadata()
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CONSUMERS") as refusal:
        drain(stub.Deq(pb.DeqRequest(), timeout=SECONDS))
    assert "2" in refusal.text
    with SQClient(port=few.port) as client:
        with pytest.raises(TooManyConsumers):
            client.deq(timeout=0)
        client.enq("a")
        calls[0].cancel()
        until(lambda: client.counts().consumers, 1)
        until(lambda: [message.body for message in calls[1].next().messages], [b"a"])
        assert client.deq(timeout=0) is None


def test_with_ack_required_false_every_delivery_is_final(stack: ExitStack) -> None:
    server = stack.enter_context(SQServer(port=0, ack_required=False))
    client = stack.enter_context(SQClient(port=server.port))
    client.enq_many(list("abcdef"))
    message = client.deq(timeout=SECONDS)
    assert message is not None
    assert message.lease_id == ""
    assert message.ack() is False
    assert client.cnt() == 5, "one deq takes one message"
    assert client.deq(timeout=SECONDS) == b"b"
    assert client.counts().acked == 2
    assert [each.decode() for each in client.consume(prefetch=3, timeout=0)] == ["c", "d", "e", "f"]
    assert client.deq(timeout=0) is None
    assert client.counts().acked == 6


def test_the_time_limit_of_a_lease_is_the_requests_or_else_the_servers(stack: ExitStack) -> None:
    server = stack.enter_context(SQServer(port=0, ack_timeout=1000.0))
    stub = connect(server, stack)
    stub.Enq(pb.EnqRequest(bodies=[b"a", b"b"]))
    calls: list[Any] = []
    for seconds in 0, 2000:
        calls.append(stub.Deq(pb.DeqRequest(ack_timeout=Duration(seconds=seconds))))
        calls[-1].next()
    held = drain(stub.Peek(pb.PeekRequest(state=pb.MESSAGE_STATE_LEASED)))
    lasts = [(each.ready_time_ms - each.message.enqueue_time_ms) / 1000 for each in held]
    assert lasts == [pytest.approx(1000, abs=100), pytest.approx(2000, abs=100)]
    for call in calls:
        call.cancel()


def test_an_ack_brings_the_next_message_which_belongs_to_the_stream(
    server: SQServer, client: SQClient, stack: ExitStack
) -> None:
    client.enq_many(list("ab"))
    stub, elsewhere = connect(server, stack), connect(server, stack)
    stream: Any = stub.Deq(pb.DeqRequest(consumer="worker"))
    (first,) = stream.next().messages
    answer = elsewhere.Ack(pb.AckRequest(lease_ids=[first.lease_id], take_next=True), timeout=SECONDS)
    (second,) = answer.messages
    assert (second.body, second.id, second.attempt, list(answer.stale_lease_ids)) == (b"b", 2, 1, [])
    assert [held.consumer for held in client.peek_messages(state=State.LEASED)] == ["worker"]
    assert not stub.Ack(pb.AckRequest(lease_ids=[second.lease_id], take_next=True), timeout=SECONDS).messages
    client.enq("c")
    (third,) = stream.next().messages
    assert third.body == b"c"
    stream.cancel()
    until(client.cnt, 1)
    late = stub.Ack(pb.AckRequest(lease_ids=[third.lease_id], take_next=True), timeout=SECONDS)
    assert (list(late.stale_lease_ids), list(late.messages)) == ([third.lease_id], [])
    assert client.counts().acked == 2


def test_a_stream_with_credit_left_is_served_after_an_ack_that_brought_a_message(
    client: SQClient, stub: QueueServiceStub
) -> None:
    client.enq(b"x" * 100)
    stream: Any = stub.Deq(pb.DeqRequest(prefetch=10, prefetch_bytes=100))
    (large,) = stream.next().messages
    client.enq(b"small")
    answer = stub.Ack(pb.AckRequest(lease_ids=[large.lease_id], take_next=True), timeout=SECONDS)
    assert [message.body for message in answer.messages] == [b"small"]
    client.enq(b"another")
    assert [message.body for message in stream.next().messages] == [b"another"]
    stream.cancel()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("error", [Unavailable, ServerError])
def test_an_ack_that_fails_once_costs_deq_nothing(
    monkeypatch: pytest.MonkeyPatch, client: SQClient, when: str, error: type[StiQueueError]
) -> None:
    """Whether it was done or not: what it acked is acked, and what was lost with its answer comes."""
    exchange = LocalEngine.exchange
    failures = [error("once")]

    def failing(self: LocalEngine, lease_id: str) -> Any:
        if not failures:
            return exchange(self, lease_id)
        if when == "after":
            exchange(self, lease_id)
        raise failures.pop()

    monkeypatch.setattr(LocalEngine, "exchange", failing)
    client.enq_many(list("abcd"))
    taken = [client.deq(timeout=SECONDS) for _ in range(4)]
    assert taken == [b"a", b"b", b"c", b"d"]
    assert [message.attempt for message in taken if message] == [1, 1, 1, 1]
    assert client.ack()
    assert client.counts().acked == 4


def test_what_an_ack_brought_that_nobody_heard_comes_back_with_the_end_of_the_stream(
    client: SQClient, stub: QueueServiceStub
) -> None:
    client.enq_many(list("ab"))
    stream: Any = stub.Deq(pb.DeqRequest())
    (first,) = stream.next().messages
    stub.Ack.future(pb.AckRequest(lease_ids=[first.lease_id], take_next=True)).cancel()  # type: ignore[attr-defined]
    stream.cancel()
    until(lambda: client.counts().leased, 0)
    taken = [message.decode() for message in client.consume(timeout=0)]
    assert taken in (["b"], ["a", "b"])


def test_a_consumer_that_reads_nothing_delays_nobody(
    server: SQServer, client: SQClient, stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    client.enq_many([b"x" * MIB] * 100)
    idle: Any = connect(server, stack).Deq(pb.DeqRequest(prefetch=1000, prefetch_bytes=1 << 30))
    idle.initial_metadata()
    until(lambda: client.counts().leased > 0)
    client.enq("small", priority=1)
    client.enq("elsewhere", queue="other")
    with SQClient(port=server.port) as other:
        assert other.deq(timeout=SECONDS) is not None, "large or small: the small one may have been sent already"
        assert other.ack()
        assert other.deq(timeout=SECONDS, queue="other") == b"elsewhere"
        assert len(other.peek_messages(1)) <= 1
    idle.cancel()
    until(lambda: client.counts().leased, 0)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_consumer_that_reads_nothing_is_not_sent_everything(server: SQServer, client: SQClient) -> None:
    client.enq_many([b"x" * MIB] * 40)
    with ExitStack() as stack:
        idle: Any = connect(server, stack).Deq(pb.DeqRequest(prefetch=1000))
        idle.initial_metadata()
        until(lambda: client.counts().leased > 0)
        # 16 MiB is what a consumer is given by default.
        assert len(list(client.consume(prefetch=4, timeout=0))) >= 24
        idle.cancel()


def test_everything_that_many_streams_of_one_connection_hold_comes_back(server: SQServer, client: SQClient) -> None:
    client.enq_many(map(str, range(50)))
    with ExitStack() as stack:
        stub = connect(server, stack)
        calls: list[Any] = [stub.Deq(pb.DeqRequest()) for _ in range(50)]
        for call in calls:
            call.next()
        assert client.counts().leased == 50
    until(client.cnt, 50)
    assert client.peek() == b",".join(str(each).encode() for each in range(50))


def test_one_connection_cannot_have_more_calls_than_max_streams(stack: ExitStack) -> None:
    server = stack.enter_context(SQServer(port=0, max_streams=5))
    stub = connect(server, stack)
    calls: list[Any] = [stub.Deq(pb.DeqRequest()) for _ in range(8)]
    other = connect(server, stack)

    def consumers() -> int:
        return sum(each.consumers for each in other.Cnt(pb.CntRequest()).queues)

    until(consumers, 5)
    with pytest.raises(grpc.RpcError) as waited:
        stub.Cnt(pb.CntRequest(), timeout=0.3)
    assert waited.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert consumers() == 5
    for call in calls:
        call.cancel()

    def served() -> bool:
        try:
            return not stub.Cnt(pb.CntRequest(), timeout=SECONDS).queues
        except grpc.RpcError as error:  # gRPC refuses until it has cleared the cancelled calls away
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return False

    until(served)


def test_headers_of_a_call_are_taken_up_to_16_kib(stub: QueueServiceStub) -> None:
    for _ in range(20):
        stub.Cnt(pb.CntRequest(), metadata=[("long", "x" * 15_000)], timeout=SECONDS)
    with pytest.raises(grpc.RpcError, match="16384") as failed:
        stub.Cnt(pb.CntRequest(), metadata=[("long", "x" * 17_000)], timeout=SECONDS)
    assert failed.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    stub.Cnt(pb.CntRequest(), timeout=SECONDS)


@pytest.mark.slow
def test_no_call_of_a_burst_is_refused_while_the_server_is_busy(server: SQServer, stack: ExitStack) -> None:
    """By default the newest gRPC cancels some when more than 1,000 wait to be accepted."""
    stubs = [connect(server, stack) for _ in range(40)]
    for stub in stubs:
        stub.Cnt(pb.CntRequest(), timeout=SECONDS)
    is_busy, goes_on = threading.Event(), threading.Event()
    assert server._loop is not None
    server._loop.call_soon_threadsafe(lambda: (is_busy.set(), goes_on.wait(SECONDS)))
    assert is_busy.wait(SECONDS)
    calls = [stub.Cnt.future(pb.CntRequest(), timeout=60.0) for _ in range(50) for stub in stubs]
    time.sleep(1.0)  # for all of them to arrive, which nobody tells
    goes_on.set()
    assert {call.code() for call in calls} == {grpc.StatusCode.OK}


@pytest.mark.slow
def test_a_client_may_ping_every_second(server: SQServer, client: SQClient) -> None:
    options = [
        ("grpc.keepalive_time_ms", 1_000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.use_local_subchannel_pool", 1),
    ]
    with grpc.insecure_channel(f"127.0.0.1:{server.port}", options=options) as channel:
        call: Any = QueueServiceStub(channel).Deq(pb.DeqRequest())
        ended = threading.Event()
        call.add_callback(ended.set)
        assert not ended.wait(6), "cut off for too many pings"
        client.enq("a")
        assert call.next().messages[0].body == b"a"
        call.cancel()


def test_reflection_tells_of_the_service(channel: grpc.Channel) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)
    requests = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol="stiqueue.v1.QueueService"),
    ]
    listed, described = stub.ServerReflectionInfo(iter(requests), timeout=SECONDS)
    names = {service.name for service in listed.list_services_response.service}
    assert names == {
        "stiqueue.v1.AdminService",
        "stiqueue.v1.QueueService",
        "stiqueue.v1.PipeService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }
    assert b"QueueService" in described.file_descriptor_response.file_descriptor_proto[0]


def test_debug_logs_every_message_with_its_body_shortened(client: SQClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stiqueue")
    client.enq(b"short")
    client.enq(b"x" * 10_000)
    for _ in range(2):
        message = client.deq(timeout=SECONDS)
        assert message is not None
        message.ack()
    lines = [record.getMessage() for record in caplog.records]
    for direction in "enq", "deq":
        short, long = [line for line in lines if line.startswith(f"{direction} default #")]
        assert "b'short'" in short
        assert "(10000 bytes)" in long
        assert len(long) < 200
    assert {"ack default #1", "ack default #2"} <= set(lines)


def test_debug_logs_what_an_ack_brings(client: SQClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "stiqueue")
    client.enq_many(list("abc"))
    for _ in range(3):
        client.deq(timeout=SECONDS)
    client.close()
    until(lambda: caplog.messages[-1].endswith(": left"))
    lines = [line for line in caplog.messages if line.startswith(("deq", "ack"))]
    assert lines == [
        "deq default #1 b'a' (1 bytes)",
        "ack default #1",
        "deq default #2 b'b' (1 bytes)",
        "ack default #2",
        "deq default #3 b'c' (1 bytes)",
        "ack default #3",
    ]


def test_without_debug_no_body_is_logged(client: SQClient, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stiqueue")
    client.enq("a secret")
    client.deq(timeout=SECONDS)
    assert "secret" not in caplog.text


def test_no_call_waits_for_the_garbage_collector(server: SQServer, stub: QueueServiceStub) -> None:
    """A call in a cycle keeps its stream, and beyond max_streams of them the oldest supported gRPC refuses new ones."""
    gc.collect()
    gc.disable()
    try:
        before = existing_calls()
        for _ in range(20):
            call = stub.Deq(pb.DeqRequest())
            call.initial_metadata()
            call.cancel()
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "BAD_QUEUE_NAME"):
                stub.Cnt(pb.CntRequest(queues=["/"]))
            assert not drain(stub.Deq(pb.DeqRequest(wait=Duration())))
            assert not drain(stub.Peek(pb.PeekRequest()))
        until(lambda: existing_calls() <= before + 2)  # gRPC keeps the latest
    finally:
        gc.enable()


def existing_calls() -> int:
    return sum(type(each).__name__ == "_ServicerContext" for each in gc.get_objects())


# -- stopping ---------------------------------------------------------------------------------------------------------


def test_stopping_twice_or_before_the_start_is_harmless() -> None:
    server = SQServer(port=0)
    server.stop()
    server.start()
    server.stop()
    server.stop()


def test_stopping_ends_streams_with_unavailable(server: SQServer, stub: QueueServiceStub) -> None:
    call: Any = stub.Deq(pb.DeqRequest())
    call.initial_metadata()
    server.stop()
    with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
        call.next()


def test_a_server_that_stops_takes_acks_and_nothing_new(server: SQServer, stub: QueueServiceStub) -> None:
    stub.Enq(pb.EnqRequest(bodies=[b"a", b"b"]))
    call: Any = stub.Deq(pb.DeqRequest())
    (message,) = call.next().messages
    stopping = Call(server.stop, grace=SECONDS)

    def refuses() -> bool:
        try:
            stub.Enq(pb.EnqRequest(bodies=[b"c"]), timeout=SECONDS)
        except grpc.RpcError:
            return True
        return False

    until(refuses)
    with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
        stub.Enq(pb.EnqRequest(bodies=[b"c"]), timeout=SECONDS)
    with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
        drain(stub.Deq(pb.DeqRequest(), timeout=SECONDS))
    assert not stopping.is_over()
    assert list(stub.Ack(pb.AckRequest(lease_ids=[message.lease_id]), timeout=SECONDS).stale_lease_ids) == []
    with refused(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"):
        call.next()
    stopping.result()


def test_listen_serves_until_it_is_stopped() -> None:
    server = SQServer(port=0)
    listening = Call(server.listen)
    assert server._started.wait(SECONDS)
    with SQClient(port=server.port) as client:
        client.enq("a")
        assert client.peek() == b"a"
    server.stop()
    listening.result()


def test_listen_on_a_port_in_use_raises(server: SQServer) -> None:
    with pytest.raises(OSError, match="in use"):
        SQServer(port=server.port).listen()


def test_the_port_is_free_again_after_a_stop() -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
        with SQClient(port=port) as client:
            client.enq("a")
    for _ in range(3):
        with SQServer(port=port), SQClient(port=port) as client:
            assert client.cnt() == 0


def test_a_stopped_server_is_unavailable(server: SQServer, client: SQClient) -> None:
    client.cnt()
    server.stop()
    with pytest.raises(Unavailable):
        client.cnt(timeout=0.2)


def test_peek_shows_a_message_once_whose_delay_ends_meanwhile(
    server: SQServer, client: SQClient, stack: ExitStack
) -> None:
    client.enq_many([b"x" * (16 << 10)] * 2_500)  # more than fits into the windows of a connection
    client.enq("later", delay=0.5)
    shown = connect(server, stack).Peek(pb.PeekRequest(state=pb.MESSAGE_STATE_ALL), timeout=SECONDS)
    seen = [peeked.message.id for peeked in next(shown).messages]
    until(lambda: client.counts().delayed, 0)
    seen += [peeked.message.id for response in shown for peeked in response.messages]
    assert sorted(seen) == list(range(1, 2_502))


def test_a_task_that_is_left_when_the_server_ends_is_cancelled() -> None:
    begun, ended = threading.Event(), threading.Event()

    async def stay() -> None:
        begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()

    def add(_: object, server: object) -> None:
        if isinstance(server, grpc.aio.Server):
            tasks.append(asyncio.ensure_future(stay()))

    tasks: list[asyncio.Task[None]] = []
    with SQServer(port=0, services=[(add, None)]):
        assert begun.wait(SECONDS)
    assert ended.is_set()
    assert tasks[0].cancelled()
