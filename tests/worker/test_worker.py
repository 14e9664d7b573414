"""`Worker`: settling by how the handler ends, threads and prefetch, and stopping without losing or doubling work."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import grpc
import pytest
from support.acks import Acks
from support.ports import free_port
from support.waiting import PATIENCE, Call, python, until

from stiqueue import InvalidRequest, Message, Reject, SQClient, SQServer, Unavailable, Worker


@contextmanager
def working(
    server: SQServer, handler: Callable[[Message], object], threads: int = 4, **options: Any
) -> Iterator[Worker]:
    """Run a worker in a thread; stop it in the end, in good order."""
    worker = Worker(handler, threads=threads, port=server.port, **options)
    running = Call(worker.run)
    yield worker
    worker.stop()
    running.result()


def test_a_message_is_acked_when_the_handler_returns(server: SQServer, client: SQClient) -> None:
    done: list[bytes] = []
    with working(server, done.append):
        client.enq_many(map(str, range(500)))
        until(lambda: client.counts().acked, 500)
    assert sorted(map(int, done)) == list(range(500))


def test_a_failure_is_tried_again_with_back_off(
    server: SQServer, client: SQClient, caplog: pytest.LogCaptureFixture
) -> None:
    attempts: list[int] = []

    def fails_twice(message: Message) -> None:
        attempts.append(message.attempt)
        if message.attempt < 3:
            raise RuntimeError("a bug")

    with caplog.at_level(logging.ERROR, "stiqueue.client"), working(server, fails_twice, retry_delay=0.02):
        client.enq("a")
        until(lambda: client.counts().acked, 1)
    assert attempts == [1, 2, 3]
    assert caplog.messages == [f"message 1 of default failed at attempt {number}: given back" for number in (1, 2)]
    assert "RuntimeError: a bug" in caplog.text


def test_the_default_is_to_wait_before_a_message_is_tried_again(server: SQServer, client: SQClient) -> None:
    with working(server, lambda message: 1 / 0):
        client.enq("a")
        until(lambda: client.counts().delayed, 1)


def test_a_rejected_message_is_a_dead_letter_with_the_reason(server: SQServer, client: SQClient) -> None:
    def reject(message: Message) -> None:
        raise Reject("ß" * 1000 if message == b"long" else "not a number")

    with working(server, reject):
        client.enq_many(["a", "long"])
        until(lambda: client.counts().dead_lettered, 2)
    reasons = {
        dead.decode(): dead.headers["stiqueue-dead-reason"] for dead in client.peek_messages(queue="default.dead")
    }
    assert reasons == {"a": "not a number", "long": "ß" * 256}


def test_what_failed_too_often_is_a_dead_letter_with_the_error(server: SQServer, client: SQClient) -> None:
    attempts: list[int] = []

    def fails(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("no such customer")

    with working(server, fails, max_attempts=3, retry_delay=0.02):
        client.enq("a")
        until(lambda: client.counts().dead_lettered, 1)
    assert attempts == [1, 2, 3]
    (dead,) = client.peek_messages(queue="default.dead")
    assert dead.headers["stiqueue-dead-reason"] == "ValueError: no such customer"
    assert dead.headers["stiqueue-dead-attempts"] == "3"


@pytest.mark.parametrize("wrong", [-1, 1.5, "3", True])
def test_a_number_of_attempts_that_is_none_is_refused(wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"max_attempts: .* is not a whole number from 0"):
        Worker(print, max_attempts=wrong)


def test_what_a_handler_settled_itself_is_left_so(
    server: SQServer, client: SQClient, caplog: pytest.LogCaptureFixture
) -> None:
    def settle(message: Message) -> None:
        if message == b"later":
            message.extend(60)
            message.requeue(3600)
        elif message == b"next":
            message.ack_and_enq("new", queue="other")
        else:
            message.ack()

    with working(server, settle):
        client.enq_many(["later", "next", "done"])
        until(lambda: (client.counts().delayed, client.counts().acked), (1, 2))
    assert client.peek(queue="other") == b"new"
    assert caplog.messages == [], "nothing is delivered again"


def test_a_message_that_the_handler_only_extended_is_acked(server: SQServer, client: SQClient) -> None:
    with working(server, lambda message: message.extend(60)):
        client.enq("a")
        until(lambda: client.counts().acked, 1)


def test_there_are_never_more_messages_here_than_threads(server: SQServer, client: SQClient) -> None:
    barrier, go_on = threading.Barrier(4), threading.Event()

    def work(_: Message) -> None:
        barrier.wait(PATIENCE)
        go_on.wait(PATIENCE)

    with working(server, work, threads=3):
        client.enq_many(list("abcdef"))
        barrier.wait(PATIENCE)
        counts = client.counts()
        assert (counts.ready, counts.leased) == (3, 3)
        barrier.reset()
        go_on.set()
        barrier.wait(PATIENCE)
    assert client.counts().acked == 6


def test_stopping_finishes_what_runs_and_leaves_the_rest(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"))
    running, go_on = threading.Event(), threading.Event()

    def work(_: Message) -> None:
        running.set()
        assert go_on.wait(PATIENCE)

    worker = Worker(work, threads=1, port=server.port)
    call = Call(worker.run)
    assert running.wait(PATIENCE)
    worker.stop()
    assert not call.is_over(0.1)
    client.enq("d")
    go_on.set()
    call.result()
    assert client.counts().acked == 1
    assert client.peek() == b"b,c,d"
    assert client.counts().leased == 0


def test_stopping_an_idle_worker_takes_no_time(server: SQServer, client: SQClient) -> None:
    worker = Worker(print, port=server.port)
    call = Call(worker.run)
    until(lambda: client.counts().consumers, 1)
    worker.stop()
    call.result()
    until(lambda: client.counts().consumers, 0)


def test_stopping_while_the_server_is_away_takes_no_time() -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
    worker = Worker(print, port=port, timeout=3600)
    call = Call(worker.run)
    assert not call.is_over(0.3)
    worker.stop()
    call.result()


def test_a_worker_that_cannot_consume_says_so() -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
    with pytest.raises(Unavailable):
        Worker(print, port=port, timeout=0.3).run()


def test_it_goes_on_after_a_restart_of_the_server(client: SQClient) -> None:
    done: list[bytes] = []
    with SQServer(port=free_port()) as server, working(server, done.append), SQClient(port=server.port) as other:
        other.enq("a")
        until(lambda: done, [b"a"])
        server.stop()
        with SQServer(port=server.port):
            other.enq("b")
            until(lambda: done, [b"a", b"b"])
            until(lambda: other.counts().acked, 1)


def test_a_worker_that_could_not_settle_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="ack_required"):
        Worker(print, ack_required=False)


def test_what_is_settled_too_late_is_only_logged(
    server: SQServer, client: SQClient, caplog: pytest.LogCaptureFixture
) -> None:
    again = threading.Event()

    def work(message: Message) -> None:
        if message.attempt == 1:
            assert again.wait(PATIENCE)
        again.set()

    with working(server, work, ack_timeout=1.0):
        client.enq("a")
        until(lambda: client.counts().acked, 1)
    assert "could not settle message 1 of default, it is delivered again" in caplog.text


# -- no error keeps a slot or a lease ----------------------------------------------------------------------------------


def _unprintable() -> Exception:
    class Unprintable(Reject):
        def __str__(self) -> str:
            raise RuntimeError("a bug in the exception")

    return Unprintable()


@pytest.mark.parametrize(
    ("error", "reason"),
    [(Reject("caf\udce9"), "caf?"), (Reject("x\ud800" * 300), "x?" * 128), (_unprintable(), "Unprintable")],
)
def test_a_reason_that_cannot_be_sent_costs_no_thread(
    server: SQServer, client: SQClient, error: Exception, reason: str
) -> None:
    def work(message: Message) -> None:
        if message == b"bad":
            raise error

    with working(server, work, threads=2):
        client.enq_many(["bad", "bad", *map(str, range(6))])
        until(lambda: (client.counts().acked, client.counts().dead_lettered), (6, 2))
    reasons = [dead.headers["stiqueue-dead-reason"] for dead in client.peek_messages(queue="default.dead")]
    assert reasons == [reason] * 2


@pytest.mark.parametrize("refusals", [1, 2])
def test_a_settlement_that_is_refused_gives_the_message_back(refusals: int, caplog: pytest.LogCaptureFixture) -> None:
    """At the first refusal by giving it back, and if that is refused as well, by ending its stream."""
    left = iter([grpc.StatusCode.PERMISSION_DENIED] * refusals)
    acks = Acks(lambda request: next(left, None))
    done: list[tuple[bytes, int]] = []
    with (
        SQServer(port=0, interceptors=[acks]) as server,
        SQClient(port=server.port) as client,
        working(server, lambda message: done.append((bytes(message), message.attempt)), threads=1),
    ):
        client.enq_many(list("abc"))
        until(lambda: client.counts().acked, 3)
    assert sorted(done) == [(b"a", 1), (b"a", 2), (b"b", 1), (b"c", 1)]
    assert "could not settle message 1 of default, it is given back: the test says PERMISSION_DENIED" in caplog.text


def test_a_settlement_is_repeated_until_it_is_answered(caplog: pytest.LogCaptureFixture) -> None:
    """The lease lasts as long as its stream, which a server that does not answer keeps open."""
    acks = Acks(lambda request: None if "not settle message 1" in caplog.text else grpc.StatusCode.UNAVAILABLE)
    done: list[bytes] = []
    with (
        SQServer(port=0, interceptors=[acks]) as server,
        SQClient(port=server.port) as client,
        working(server, done.append, threads=1, timeout=0.2),
    ):
        client.enq_many(list("abc"))
        until(lambda: client.counts().acked, 3)
    assert done == [b"a", b"b", b"c"]


def test_stopping_waits_for_no_answer_that_does_not_come() -> None:
    asked = threading.Event()

    def verdict(request: Any) -> grpc.StatusCode:
        asked.set()
        return grpc.StatusCode.UNAVAILABLE

    with SQServer(port=0, interceptors=[Acks(verdict)]) as server, SQClient(port=server.port) as client:
        with working(server, lambda message: None, threads=1, timeout=0.2):
            client.enq("a")
            assert asked.wait(PATIENCE)
        until(client.peek, b"a")


def test_a_defect_ends_the_worker_and_gives_everything_back(server: SQServer, client: SQClient) -> None:
    class Broken(logging.Logger):
        def exception(self, *args: object, **options: object) -> None:
            raise OSError("no room for the log")

    client.enq_many(list("ab"))
    worker = Worker(lambda message: 1 / 0, threads=1, port=server.port, logger=Broken("broken"))
    with pytest.raises(OSError, match="no room for the log"):
        Call(worker.run).result()
    until(client.peek, b"a,b")


def test_what_a_handler_returns_is_run_by_nobody_and_not_acked(
    server: SQServer, client: SQClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def later(message: Message) -> None:
        raise AssertionError("nobody runs this")

    def generate(message: Message) -> Iterator[Message]:
        yield message

    with working(server, lambda message: later(message) if message == b"a" else generate(message)):
        client.enq_many(list("ab"))
        until(lambda: client.counts().delayed, 2)
    assert client.counts().acked == 0
    assert "the handler returned a coroutine" in caplog.text
    assert "the handler returned a generator" in caplog.text


async def _coroutine(message: Message) -> None:
    """Look like a handler."""


def _generator(message: Message) -> Iterator[Message]:
    yield message


async def _async_generator(message: Message) -> AsyncIterator[Message]:
    yield message


class _Handlers:
    async def __call__(self, message: Message) -> None:
        """Look like a handler."""

    async def method(self, message: Message) -> None:
        """Look like a handler."""


@pytest.mark.parametrize(
    "handler", [_coroutine, _generator, _async_generator, partial(_coroutine), _Handlers(), _Handlers().method, None, 7]
)
def test_a_handler_that_would_not_run_is_refused_when_the_worker_is_made(handler: Any) -> None:
    with pytest.raises(InvalidRequest, match="handler") as refused:
        Worker(handler)
    assert refused.value.reason == "BAD_OPTION"


@pytest.mark.parametrize("threads", [0, -1, 10_001, 1.5, True, "4", None])
def test_a_number_of_threads_that_makes_no_sense_is_refused(threads: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"threads: .* is not an integer within 1 to 10000") as refused:
        Worker(print, threads=threads)
    assert refused.value.reason == "BAD_OPTION"


PROGRAM = r"""
import os, sys, threading
from stiqueue import Worker
go_on = threading.Event()

def work(message):
    os.write(1, b"began " + message + b"\n")  # in one piece, of whatever thread
    if message == b"slow":
        assert go_on.wait(20)
    os.write(1, b"ended " + message + b"\n")

threading.Thread(target=lambda: (sys.stdin.readline(), go_on.set()), daemon=True).start()
Worker(work, threads=2, port=int(sys.argv[1])).run()
print("bye", flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_it_finish_what_runs(server: SQServer, client: SQClient, number: signal.Signals) -> None:
    client.enq("slow")
    with python(PROGRAM, server.port) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "began slow\n"
        process.send_signal(number)
        until(lambda: client.counts().consumers, 1)
        process.stdin.write("go on\n")
        process.stdin.flush()
        output, errors = process.communicate(timeout=PATIENCE)
    assert (output, errors, process.returncode) == ("ended slow\nbye\n", "", 0)
    assert client.counts().acked == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_killed_it_gives_everything_back(server: SQServer, client: SQClient) -> None:
    client.enq_many(["slow", "slow", "later"])
    with python(PROGRAM, server.port) as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "began slow\n"
        process.kill()
        until(client.peek, b"slow,slow,later")
