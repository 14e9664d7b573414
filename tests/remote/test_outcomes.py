"""What is repeated, divided and waited for when many threads or tasks use one client.

A request whose outcome is unknown is repeated under its id or given up, never sent again under another. Each call waits
no longer than its own timeout, and ends with its own answer or its own error.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest
from faults.proxy import Direction, Mode, Proxy
from support.ports import free_port
from support.script import LOST, Script, played
from support.waiting import PATIENCE, Call, until

from stiqueue import InvalidRequest, QueueFull, SQClient, SQServer, StiQueueError, Unavailable
from stiqueue.client.calls.outbox import MOST_OF_A_KIND
from stiqueue.client.dequeue import FEW
from stiqueue.v1 import queue_pb2_grpc

from .conftest import Connect

SLACK = 8.0
"""What a busy machine may add to a timeout."""


def outcome_of(call: Call[Any]) -> Any:
    """What a call returned or raised."""
    try:
        return call.result()
    except StiQueueError as error:
        return error


def enq_together(client: Any, script: Script, number: int) -> list[Any]:
    """Let flows enqueue while others are under way, so that they travel together; return how each ended."""
    before = []
    for count in range(1, MOST_OF_A_KIND + 1):
        before.append(Call(client.enq, f"before {count}"))
        until(lambda count=count: len(script.asked), count)  # type: ignore[misc]
    calls = [Call(client.enq, f"{each}") for each in range(number)]
    assert not any(call.is_over(0.1) for call in calls)
    script.go.set()
    assert [each.result() for each in before] == [100, 200]
    return [outcome_of(call) for call in calls]


def test_a_joint_request_that_is_refused_is_divided(connect: Connect) -> None:
    with played(Script(None, None, QueueFull("no room for all"), None, QueueFull("no room"), None)) as script:
        outcomes = enq_together(connect(script.port), script, 3)
    assert [len(request.bodies) for request in script.asked] == [1, 1, 3, 1, 1, 1]
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["QueueFull", "int", "int"]


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_joint_request_without_an_answer_is_repeated_as_it_is(connect: Connect) -> None:
    with played(Script(None, None, LOST, LOST)) as script:
        outcomes = enq_together(connect(script.port), script, 3)
    assert sorted(outcomes) == [500, 501, 502]
    assert all(len(ids) == 1 for ids in script.request_ids.values()), "sent under a second id"


@pytest.mark.scenario("connection is reset, or an answer lost")
@pytest.mark.parametrize("refusal", [QueueFull("full"), InvalidRequest("too large", "MESSAGE_TOO_LARGE")])
def test_a_joint_request_that_is_refused_after_an_answer_was_lost_is_not_divided(
    connect: Connect, refusal: StiQueueError
) -> None:
    """It may have been done at the first try: nobody is told that it was refused."""
    with played(Script(None, None, LOST, *[refusal] * 3)) as script:
        outcomes = enq_together(connect(script.port), script, 3)
    assert [type(outcome) for outcome in outcomes] == [Unavailable] * 3
    assert len(set(map(id, outcomes))) == 3, "an error of its own for each"
    assert all(len(ids) == 1 for ids in script.request_ids.values()), "sent under a second id"


def test_a_refusal_says_whether_it_is_certain(connect: Connect) -> None:
    """It is not after a try whose answer was lost."""
    with played(Script(QueueFull("full"), LOST, QueueFull("full"))) as script:
        script.go.set()
        client = connect(script.port)
        for certain in True, False:
            with pytest.raises(QueueFull) as refused:
                client.enq("a")
            assert refused.value.is_refusal is certain


@pytest.mark.scenario("connection is reset, or an answer lost")
@pytest.mark.parametrize("call", ["enq", "enq_many"])
def test_waiting_for_room_repeats_one_request(connect: Connect, call: str) -> None:
    """The first try may have been done, although a later one finds the queue full."""
    with played(Script(LOST, QueueFull("full"), QueueFull("full"))) as script:
        script.go.set()
        getattr(connect(script.port), call)("a" if call == "enq" else ["a"], block=True)
    assert len(script.asked) == 4
    assert script.request_ids == {b"a": {script.asked[0].request_id}}


@pytest.mark.slow
@pytest.mark.scenario("server stays away")
@pytest.mark.parametrize("queues", [1, 6])
def test_timeouts_do_not_add_up(connect: Connect, queues: int) -> None:
    """Six flows call an absent server: each returns after its own timeout, whomever it waited for."""
    with SQServer(port=free_port()) as server:
        port = server.port
    client = connect(port, timeout=3.0)

    def enq(number: int) -> float:
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="within 3 s"):
            client.enq("a", queue=f"q{number % queues}")
        return time.monotonic() - begin

    calls = [Call(enq, number) for number in range(6)]
    assert max(call.result() for call in calls) < 3.0 + SLACK


@pytest.mark.scenario("server stays away")
def test_a_short_timeout_is_kept_behind_a_long_one(connect: Connect) -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
    client = connect(port, timeout=PATIENCE)
    long = Call(client.enq, "long")
    assert not long.is_over(0.2)
    begin = time.monotonic()
    with pytest.raises(Unavailable, match=r"within 0\.5 s"):
        client.enq("short", timeout=0.5)
    assert time.monotonic() - begin < 0.5 + SLACK
    assert not long.is_over()
    with SQServer(port=port):
        assert long.result() == 1, "and the client goes on"


SETTLING: dict[str, Callable[[Any, Any], object]] = {
    "ack": lambda client, message: message.ack(),
    "ack_and_enq": lambda client, message: message.ack_and_enq("next"),
    "ack_and_enq with a timeout": lambda client, message: message.ack_and_enq("next", timeout=3.0),
    "deq": lambda client, message: client.deq(),
    "deq with a timeout": lambda client, message: client.deq(timeout=5.0),
}


@pytest.mark.slow
@pytest.mark.parametrize("call", SETTLING)
def test_timeouts_of_settling_do_not_add_up(connect: Connect, server: SQServer, call: str) -> None:
    """Several flows settle a message each, and the server's answers do not come."""
    with Proxy(f"127.0.0.1:{server.port}") as proxy, SQClient(port=server.port) as other:
        # More than FEW of `deq` do not wait for the ack before. Added up, the timeouts are above one and SLACK.
        flows, timeout = (FEW, 5.0) if call.startswith("deq") else (6, 3.0)
        other.enq_many(map(str, range(flows)))
        client = connect(int(proxy.target.rpartition(":")[2]), timeout=timeout)
        silent = threading.Event()

        def settle() -> float:
            message = client.deq()
            assert silent.wait(PATIENCE)
            begin = time.monotonic()
            with pytest.raises(Unavailable):
                SETTLING[call](client, message)
            return time.monotonic() - begin

        calls = [Call(settle) for _ in range(flows)]
        until(lambda: other.counts().leased, flows)
        assert not any(each.is_over(0.1) for each in calls)
        proxy.set(Mode.STALL, Direction.DOWN)
        silent.set()
        assert max(each.result() for each in calls) < timeout + SLACK
        proxy.set(Mode.PASS)


def test_one_that_waits_goes_on_with_a_request_that_another_gave_up(connect: Connect, server: SQServer) -> None:
    """It has more time than the one that sent for both, and gets its own answer."""
    with Proxy(f"127.0.0.1:{server.port}") as proxy, SQClient(port=server.port) as other:
        client = connect(int(proxy.target.rpartition(":")[2]), timeout=PATIENCE)
        client.cnt()
        other.cnt()
        proxy.set(Mode.STALL, Direction.DOWN)
        begin = time.monotonic()
        # The third waits for the answer of one of the first two, and then no longer.
        calls = [Call(client.enq, "a", timeout=1.0)]
        until(other.cnt, 1)
        calls.append(Call(client.enq, "b", timeout=2.0))
        assert not calls[0].is_over(0.1)
        calls.append(Call(client.enq, "c"))
        until(other.cnt, 3)
        for call in calls[:2]:
            assert isinstance(outcome_of(call), Unavailable)
        assert time.monotonic() - begin < 2.0 + SLACK
        proxy.set(Mode.PASS)
        assert calls[2].result() == 3
        assert other.peek() == b"a,b,c", "each once"


@pytest.mark.slow
def test_redrive_goes_on_after_the_connection_is_lost_and_moves_no_more_than_asked(
    connect: Connect, server: SQServer
) -> None:
    with Proxy(f"127.0.0.1:{server.port}") as proxy, SQClient(port=server.port) as other:
        other.enq_many(map(str, range(300)))
        for message in other.consume(timeout=0, prefetch=100):
            message.dead_letter()
        client = connect(int(proxy.target.rpartition(":")[2]), timeout=PATIENCE)
        redriving = Call(client.redrive, 250)
        for some in 30, 150:
            until(lambda some=some: other.cnt() >= some)  # type: ignore[misc]
            assert proxy.reset() > 0
        assert redriving.result() == 250
        assert sorted(int(message) for message in other.peek_messages()) == list(range(250)), "each once"
        assert other.cnt(queue="default.dead") == 50


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_the_exception_of_a_signal_handler_is_that_of_its_own_call_alone(server: SQServer) -> None:
    """The main thread waits when its handler raises; those that gather behind it get their answers."""

    class Interrupted(Exception):
        pass

    def handler(*_: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGUSR1, handler)
    try:
        with (
            Proxy(f"127.0.0.1:{server.port}") as proxy,
            SQClient(port=server.port) as other,
            SQClient(port=int(proxy.target.rpartition(":")[2]), timeout=PATIENCE) as client,
        ):
            client.cnt()
            proxy.set(Mode.STALL, Direction.DOWN)
            first = Call(client.enq, "first")
            until(other.cnt, 1)
            others: list[Call[int]] = []

            def interrupt() -> None:
                until(other.cnt, 2)  # that of the main thread has come; its answer is on the way
                others.extend(Call(client.enq, f"{number}") for number in range(3))
                os.kill(os.getpid(), signal.SIGUSR1)

            interrupting = Call(interrupt)
            with pytest.raises(Interrupted):
                client.enq("main")
            interrupting.result()
            until(other.cnt, 5)
            proxy.set(Mode.PASS)
            ids = [first.result(), *(call.result() for call in others)]
            found = {message.id: bytes(message) for message in other.peek_messages()}
            assert [found.pop(each) for each in ids] == [b"first", b"0", b"1", b"2"]
            assert list(found.values()) == [b"main"], "each once"
            assert client.enq("next") == 6
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_call_that_ends_without_a_response_has_an_unknown_outcome(
    server: SQServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As grpcio 1.71 may end one whose deadline meets the answer. It is repeated, under the same request id."""
    seen: list[str] = []

    class Losing:
        """A method that loses the first response."""

        def __init__(self, method: Any) -> None:
            self._method = method

        def future(self, request: Any, **options: Any) -> Any:
            seen.append(request.request_id)
            call = self._method.future(request, **options)
            if len(seen) > 1:
                return call
            assert call.result().first_id == 1  # the server has done it
            lost: Future[None] = Future()
            lost.set_result(None)
            return lost

        def __call__(self, request: Any, **options: Any) -> Any:
            seen.append(request.request_id)
            return self._method(request, **options)

    original = queue_pb2_grpc.QueueServiceStub.__init__

    def init(stub: Any, channel: Any) -> None:
        original(stub, channel)
        stub.Enq = Losing(stub.Enq)

    monkeypatch.setattr(queue_pb2_grpc.QueueServiceStub, "__init__", init)
    with SQClient(port=server.port) as client:
        assert client.enq_many(["a", "b"]) == 2
        assert client.cnt() == 2
    assert len(seen) == 2
    assert len(set(seen)) == 1
