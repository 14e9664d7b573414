"""A `Worker` on a client that it is given: with a real server, in this process, and by a clock moved by hand."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from support.waiting import Call, until

from stiqueue import Closed, InvalidRequest, LocalSQClient, Message, SQClient, SQServer, Worker
from stiqueue.testing import FakeClock


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    clock = FakeClock()
    yield clock
    clock.close()


def test_it_works_on_the_queue_of_the_client_and_leaves_that_open(server: SQServer) -> None:
    with SQClient(port=server.port, queue="jobs", auto_ack=False) as client:
        done: list[bytes] = []
        worker = Worker(done.append, client=client)
        running = Call(worker.run)
        client.enq("a")
        until(lambda: client.counts().acked, 1)
        worker.stop()
        running.result()
        assert done == [b"a"]
        until(lambda: client.counts().consumers, 0)
        assert client.enq("b") == 2


def test_another_queue_can_be_named(server: SQServer) -> None:
    with SQClient(port=server.port, queue="jobs", auto_ack=False) as client:
        client.enq("a", queue="others")
        done: list[bytes] = []
        Worker(done.append, "others", client=client).run(timeout=0)
        assert done == [b"a"]


def test_it_ends_when_no_message_is_ready(server: SQServer, client: SQClient) -> None:
    """It first finishes those in work, which may enqueue more."""

    def count_down(message: Message) -> None:
        if int(message):
            client.enq(str(int(message) - 1))

    client.enq_many(["5"] * 10)
    Worker(count_down, threads=4, port=server.port).run(timeout=0)
    assert client.counts().acked == 60


def test_it_can_run_again(clock: FakeClock) -> None:
    client = clock.client(auto_ack=False)
    done: list[bytes] = []
    worker = Worker(done.append, client=client)
    for body in ("a", "b"):
        client.enq(body)
        worker.run(timeout=0)
    assert done == [b"a", b"b"]


def test_with_a_client_of_its_own_it_runs_once(server: SQServer) -> None:
    worker = Worker(print, port=server.port)
    worker.run(timeout=0)
    with pytest.raises(Closed):
        worker.run(timeout=0)


def test_retries_pass_by_the_clock(clock: FakeClock) -> None:
    client = clock.client(auto_ack=False, retry_delay=60)
    attempts: list[int] = []

    def fail(message: Message) -> None:
        attempts.append(message.attempt)
        raise ValueError("no such customer")

    worker = Worker(fail, client=client, max_attempts=3)
    client.enq("a")
    worker.run(timeout=0)
    assert attempts == [1]
    for seconds, after in ((59, [1]), (1, [1, 2]), (119, [1, 2]), (1, [1, 2, 3])):
        clock.advance(seconds)
        worker.run(timeout=0)
        assert attempts == after
    (dead,) = client.peek_messages(queue="default.dead")
    assert dead.headers["stiqueue-dead-reason"] == "ValueError: no such customer"


class CountingClock(FakeClock):
    """Counts how often the engine asks for the time, which it does at each look for messages."""

    asked = 0

    def monotonic(self) -> float:
        self.asked += 1
        return super().monotonic()


def test_it_does_not_ask_for_messages_all_the_time_while_one_is_in_work() -> None:
    clock = CountingClock()
    client = clock.client(auto_ack=False)
    client.enq("a")
    Worker(lambda message: time.sleep(0.2), client=client).run(timeout=0)
    assert client.counts().acked == 1
    assert clock.asked < 100
    clock.close()


def test_a_defect_gives_everything_back(clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    client = clock.client(auto_ack=False)
    client.enq_many(["a", "b", "c"])

    def broken(*arguments: object, **options: object) -> None:
        raise OSError("no space left for the log")

    monkeypatch.setattr(client.logger, "exception", broken)
    with pytest.raises(OSError, match="no space left"):
        Worker(lambda message: 1 / 0, client=client, threads=2).run()
    counts = client.counts()
    assert (counts.ready, counts.leased, counts.consumers) == (3, 0, 0)


def test_a_local_client_does_as_well() -> None:
    with LocalSQClient(auto_ack=False) as client:
        client.enq("a")
        done: list[bytes] = []
        Worker(done.append, client=client).run(timeout=0)
        assert done == [b"a"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"client": "localhost"}, "client: 'localhost' is not an SQClient or a LocalSQClient"),
        ({"client": SQClient(auto_ack=False), "port": 1}, "port: set it on the client, not on the worker"),
        ({"client": SQClient()}, "client: a worker settles its messages; make the client with auto_ack=False"),
        ({"client": SQClient(auto_ack=False, ack_required=False)}, "client: a worker settles its messages"),
    ],
)
def test_a_client_that_does_not_fit_is_refused(arguments: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        Worker(print, **arguments)


@pytest.mark.parametrize("wrong", [-1, "5"])
def test_a_timeout_out_of_range_is_refused(clock: FakeClock, wrong: Any) -> None:
    with pytest.raises(InvalidRequest, match="timeout"):
        Worker(print, client=clock.client(auto_ack=False)).run(wrong)
