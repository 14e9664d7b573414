"""A call on gRPC's own objects behaves as its public one, and where a release has no such objects, that is used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import pytest
from support.waiting import PATIENCE, Call, until

from stiqueue import SQClient, SQServer
from stiqueue.client.calls import direct
from stiqueue.client.calls.blocking_pipe import BlockingPipe
from stiqueue.client.calls.direct import CallFailed, DirectCall
from stiqueue.client.calls.kinds import ChannelClosed, Source
from stiqueue.v1.pipe_pb2 import PipeRequest

Behavior = Callable[[Iterator[bytes], grpc.ServicerContext], Iterator[bytes]]

needs_private_parts = pytest.mark.skipif(
    tuple(map(int, grpc.__version__.split(".")[:2])) < direct.OLDEST, reason="this release makes public calls"
)


class Service(grpc.GenericRpcHandler):
    """Answers every call by `behavior`."""

    def __init__(self) -> None:
        self.behavior: Behavior = lambda requests, context: requests
        self.metadata: list[tuple[str, Any]] = []

    def service(self, call: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[bytes, bytes]:
        self.metadata = list(call.invocation_metadata)
        return grpc.stream_stream_rpc_method_handler(lambda requests, context: self.behavior(requests, context))


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def channel(service: Service) -> Iterator[grpc.Channel]:
    server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(service,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
    finally:
        server.stop(0)


def send(call: DirectCall, body: bytes) -> bool:
    """Send once there is room."""
    return call.reserve(wait=True) and call.send(body)


def to_the_end(call: DirectCall) -> CallFailed | None:
    """Receive until the call ends; return how it failed."""
    try:
        while call.receive() is not None:
            pass
    except CallFailed as error:
        return error
    return None


@needs_private_parts
def test_messages_pass_both_ways_in_order(channel: grpc.Channel) -> None:
    call = DirectCall(channel, "/any/Method", ())
    bodies = [b"%d" % number * (1 + number % 50) for number in range(3_000)]
    sending = Call(lambda: [send(call, body) for body in bodies])
    assert [call.receive() for _ in bodies] == bodies
    assert all(sending.result())
    call.cancel(grpc.StatusCode.CANCELLED, "enough")
    error = to_the_end(call)
    assert error is not None
    assert error.code() is grpc.StatusCode.CANCELLED
    assert "enough" in error.details()
    assert not send(call, b"late")
    assert to_the_end(call) is error  # again and again
    call.cancel(grpc.StatusCode.CANCELLED, "late")


@needs_private_parts
def test_a_call_that_ends_well(channel: grpc.Channel, service: Service) -> None:
    service.behavior = lambda requests, context: iter([next(requests), b"last"])
    call = DirectCall(channel, "/any/Method", [("authorization", "Bearer me")])
    assert send(call, b"first")
    assert [call.receive(), call.receive(), call.receive()] == [b"first", b"last", None]
    assert not send(call, b"late")
    assert ("authorization", "Bearer me") in service.metadata


@needs_private_parts
def test_a_call_that_fails_tells_all_of_it(channel: grpc.Channel, service: Service) -> None:
    def fail(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        context.send_initial_metadata((("x-first", "1"),))
        yield next(requests)
        context.set_trailing_metadata((("x-last", "2"), ("x-last-bin", b"\xff")))
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "wrong in ä way")

    service.behavior = fail
    call = DirectCall(channel, "/any/Method", ())
    send(call, b"x")
    assert call.receive() == b"x"
    error = to_the_end(call)
    assert error is not None
    assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "wrong in ä way")
    assert [tuple(each) for each in error.initial_metadata()] == [("x-first", "1")]
    assert {("x-last", "2"), ("x-last-bin", b"\xff")} <= {tuple(each) for each in error.trailing_metadata()}


@needs_private_parts
def test_who_waits_for_room_is_let_go_when_the_call_ends(channel: grpc.Channel, service: Service) -> None:
    enough, never = threading.Event(), threading.Event()

    def read_nothing(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        enough.wait(PATIENCE)
        return iter(())

    service.behavior = read_nothing
    call = DirectCall(channel, "/any/Method", ())
    sent: list[bool] = []

    def send_all() -> None:
        while not sent or sent[-1]:
            sent.append(send(call, bytes(1 << 20)))

    sending, receiving = Call(send_all), Call(to_the_end, call)
    seen = -1
    while seen != len(sent):  # until the buffers are full
        seen = len(sent)
        never.wait(0.3)
    enough.set()
    receiving.result()
    sending.result()
    assert sent[-1] is False


@needs_private_parts
def test_a_channel_that_is_closed_ends_it(channel: grpc.Channel) -> None:
    call = DirectCall(channel, "/any/Method", ())
    receiving = Call(to_the_end, call)
    channel.close()
    error = receiving.result()
    assert error is not None
    assert error.code() is grpc.StatusCode.CANCELLED
    assert not send(call, b"late")
    with pytest.raises(ChannelClosed):
        DirectCall(channel, "/any/Method", ())


def test_nobody_listens() -> None:
    with grpc.insecure_channel("127.0.0.1:9") as channel:
        ended = threading.Event()
        pipe = BlockingPipe(channel, (), source(), ended.set)
        with pytest.raises(grpc.RpcError) as raised:
            read(pipe)
        assert ended.wait(PATIENCE)
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


def source(*requests: PipeRequest, heard: Callable[[bytes], Any] = bytes) -> Source:
    """Return a source of these requests."""
    left = list(requests)
    return Source(
        lambda: left.pop(0) if left else None,
        lambda _: None,
        lambda: None,
        lambda: bool(left),
        lambda: False,
        heard,
        lambda: None,
    )


def read(pipe: BlockingPipe) -> Any:
    """Read the next response, as the client's companion does."""
    try:
        pipe.read().send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it suspended")


def broken(_: bytes) -> Any:
    """Fail as a parser does."""
    raise ValueError("no message")


@pytest.mark.parametrize("way", [pytest.param("private", marks=needs_private_parts), "public"])
def test_a_response_that_cannot_be_parsed_ends_the_pipe(
    way: str, channel: grpc.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    if way == "public":
        monkeypatch.setattr(direct, "OLDEST", (999, 0))
    ended: list[bool] = []
    pipe = BlockingPipe(channel, (), source(PipeRequest(number=1), heard=broken), lambda: ended.append(True))
    with pytest.raises(grpc.RpcError) as raised:
        read(pipe)
    pipe.cancel()
    assert raised.value.code() is grpc.StatusCode.INTERNAL
    if way == "private":  # the public call ends with the server's side of it
        until(lambda: ended, [True])
        until(names, set())


def names() -> set[str]:
    """Return the names of the threads that write."""
    return {thread.name for thread in threading.enumerate() if "writer" in thread.name}


def test_it_is_used_where_it_works(server: SQServer) -> None:
    with SQClient(port=server.port) as client:
        assert client.enq("a") == 1
        assert bool(names()) == (tuple(map(int, grpc.__version__.split(".")[:2])) >= direct.OLDEST)
    until(names, set())


@pytest.mark.parametrize("part", ["SendInitialMetadataOperation", "ReceiveStatusOnClientOperation"])
@pytest.mark.parametrize("error", [AttributeError, TypeError])
def test_a_later_release_with_other_parts_makes_public_calls(
    part: str, error: type[Exception], server: SQServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Changed:
        """The private parts of a later release."""

        def __getattr__(self, name: str) -> Any:
            if name == part:
                raise error(name)
            return getattr(cygrpc, name)

    import grpc._cython

    cygrpc = grpc._cython.cygrpc  # type: ignore[attr-defined]
    monkeypatch.setattr(grpc._cython, "cygrpc", Changed())
    with SQClient(port=server.port) as client:
        assert client.enq("a") == 1
        assert client.deq(timeout=PATIENCE) == b"a"
        assert not names()


def enqueue_for_ever(client: SQClient) -> None:
    """Enqueue until something is raised."""
    while True:
        client.enq("mine")


@needs_private_parts
@pytest.mark.parametrize("step", ["reserve", "send"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_signal_handler_that_raises_while_a_flow_sends_harms_no_other(
    step: str, done: bool, server: SQServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the signal came just before or after a step: what the flow has must not stay with it."""
    original = getattr(DirectCall, step)
    interrupted = threading.get_ident()

    def interrupt(call: DirectCall, *arguments: Any, **options: Any) -> Any:
        if threading.get_ident() != interrupted:
            return original(call, *arguments, **options)
        if done:
            original(call, *arguments, **options)
        raise KeyboardInterrupt

    with SQClient(port=server.port, timeout=PATIENCE) as client:
        client.enq("first")
        others = [Call(lambda: [client.enq("other") for _ in range(50)]) for _ in range(4)]
        monkeypatch.setattr(DirectCall, step, interrupt)
        for _ in range(3):
            with pytest.raises(KeyboardInterrupt):
                enqueue_for_ever(client)
        monkeypatch.undo()
        numbers = [number for other in others for number in other.result()]
        assert len(set(numbers)) == 200
        assert client.enq("last") > max(numbers)
        bodies = [bytes(message) for message in client.peek_messages(300)]
        assert bodies.count(b"other") == 200
