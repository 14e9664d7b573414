"""`Worker`: settling by how the handler ends, threads and prefetch, and stopping without losing or doubling work."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
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
    assert caplog.messages == [f"message 1 of default failed at attempt {number}" for number in (1, 2)]
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
        client.enq_many("abcdef")
        barrier.wait(PATIENCE)
        counts = client.counts()
        assert (counts.ready, counts.leased) == (3, 3)
        barrier.reset()
        go_on.set()
        barrier.wait(PATIENCE)
    assert client.counts().acked == 6


def test_stopping_finishes_what_runs_and_leaves_the_rest(server: SQServer, client: SQClient) -> None:
    client.enq_many("abc")
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
    with SQServer(port=0) as server:
        port = server.port
    worker = Worker(print, port=port, timeout=3600)
    call = Call(worker.run)
    assert not call.is_over(0.3)
    worker.stop()
    call.result()


def test_a_worker_that_cannot_consume_says_so() -> None:
    with SQServer(port=0) as server:
        port = server.port
    with pytest.raises(Unavailable):
        Worker(print, port=port, timeout=0.3).run()


def test_it_goes_on_after_a_restart_of_the_server(client: SQClient) -> None:
    done: list[bytes] = []
    with SQServer(port=0) as server, working(server, done.append), SQClient(port=server.port) as other:
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

    with working(server, work, ack_timeout=0.05):
        client.enq("a")
        until(lambda: client.counts().acked, 1)
    assert "could not settle message 1 of default, it is delivered again" in caplog.text


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
