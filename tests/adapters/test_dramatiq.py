"""The broker of Dramatiq: in this process, and under its worker processes that are killed."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import dramatiq
import pytest
from dramatiq.errors import ConnectionClosed, QueueJoinTimeout, QueueNotFound
from faults.processes import ServerProcess
from support.ports import free_port
from support.waiting import until

from stiqueue import InvalidRequest, SQClient, SQServer
from stiqueue.adapters.dramatiq import StiQueueBroker

from .conftest import Begin, Program


@pytest.fixture
def broker(server: SQServer) -> Iterator[StiQueueBroker]:
    broker = StiQueueBroker(port=server.port)
    dramatiq.set_broker(broker)
    yield broker
    broker.close()


@pytest.fixture
def work(broker: StiQueueBroker) -> Iterator[Callable[..., dramatiq.Worker]]:
    """Start a worker in this process."""
    workers: list[dramatiq.Worker] = []

    def start(threads: int = 2) -> dramatiq.Worker:
        workers.append(dramatiq.Worker(broker, worker_timeout=100, worker_threads=threads))
        workers[-1].start()
        return workers[-1]

    yield start
    for worker in workers:
        worker.stop()


def test_actors_run(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    seen: list[int] = []

    @dramatiq.actor
    def note(number: int) -> None:
        seen.append(number)

    for number in range(20):
        note.send(number)
    work()
    broker.join("default", timeout=20_000)
    assert sorted(seen) == list(range(20))
    assert client.counts(queue="default").acked == 20


def test_a_delay_is_the_servers(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    seen: list[str] = []

    @dramatiq.actor
    def note(what: str) -> None:
        seen.append(what)

    work()
    note.send_with_options(args=("later",), delay=300)
    note.send_with_options(args=("in an hour",), delay=3_600_000)
    note.send("now")
    until(lambda: seen == ["now"])
    counts = client.counts(queue="default")
    assert counts.delayed >= 1
    assert counts.leased == 0
    until(lambda: seen == ["now", "later"])
    with pytest.raises(QueueJoinTimeout):
        broker.join("default", timeout=10)


def test_a_failure_for_good_is_a_dead_letter(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    @dramatiq.actor(max_retries=1, min_backoff=1, max_backoff=1)
    def fail() -> None:
        raise RuntimeError("broken")

    fail.send()
    work()
    until(lambda: client.cnt(queue="default.dead"), 1)
    (letter,) = client.peek_messages(queue="default.dead")
    assert letter.headers["stiqueue-dead-reason"] == "RuntimeError: broken"
    assert client.counts(queue="default").enqueued == 2


def test_a_failure_that_cannot_be_written_is_a_dead_letter(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    class Odd(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @dramatiq.actor(max_retries=0)
    def fail() -> None:
        raise Odd

    fail.send()
    work()
    until(lambda: client.cnt(queue="default.dead"), 1)
    (letter,) = client.peek_messages(queue="default.dead")
    assert letter.headers["stiqueue-dead-reason"] == "Odd: Odd"


def test_what_is_no_message_is_a_dead_letter(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    broker.declare_queue("default")
    client.enq("{", queue="default")
    work()
    until(lambda: client.cnt(queue="default.dead"), 1)
    (letter,) = client.peek_messages(queue="default.dead")
    assert letter.headers["stiqueue-dead-reason"].startswith("no message of Dramatiq")


@pytest.mark.parametrize("field", ["options", "kwargs", "args", "actor_name"])
def test_what_has_other_types_is_a_dead_letter(broker: StiQueueBroker, work: Any, client: SQClient, field: str) -> None:
    message = {"queue_name": "default", "actor_name": "a", "args": [], "kwargs": {}, "options": {}}
    message |= {"message_id": "1", "message_timestamp": 1, field: None}
    broker.declare_queue("default")
    client.enq(json.dumps(message), queue="default")
    work()
    until(lambda: client.cnt(queue="default.dead"), 1)


def test_a_message_that_was_moved_is_of_its_new_queue(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    done: list[int] = []
    actor = dramatiq.actor(done.append, actor_name="append", queue_name="new")
    old = actor.message(1).copy(queue_name="old")
    for _ in range(4):
        client.enq(old.encode(), queue="new")
    work()
    until(lambda: client.counts(queue="new").acked, 4)
    assert done == [1] * 4


def test_a_broker_priority_orders_the_queue(broker: StiQueueBroker, client: SQClient) -> None:
    @dramatiq.actor(broker_priority=5)
    def note(number: int) -> None: ...

    note.send(1)
    note.send_with_options(args=(2,), broker_priority=9)
    assert [message.priority for message in client.peek_messages(queue="default")] == [9, 5]


def test_a_stopped_worker_gives_back_what_it_has_not_begun(broker: StiQueueBroker, work: Any, client: SQClient) -> None:
    started: list[int] = []
    allowed = threading.Event()

    @dramatiq.actor
    def note(number: int) -> None:
        started.append(number)
        allowed.wait(20)

    for number in range(10):
        note.send(number)
    worker = work(threads=1)
    until(lambda: len(started), 1)
    until(lambda: client.counts(queue="default").leased, 2)
    allowed.set()
    worker.stop()
    done = len(started)
    until(lambda: client.counts(queue="default").ready, 10 - done)
    assert {message.attempt for message in client.peek_messages(queue="default")} <= {0}


def test_flush_drops_what_is_ready(broker: StiQueueBroker, client: SQClient) -> None:
    @dramatiq.actor
    def note() -> None: ...

    note.send()
    broker.flush_all()
    assert client.cnt(queue="default") == 0


def test_bad_input_is_refused(broker: StiQueueBroker) -> None:
    @dramatiq.actor
    def note() -> None: ...

    with pytest.raises(QueueNotFound):
        broker.consume("nobody declared this")
    with pytest.raises(InvalidRequest, match="priority"):
        note.send_with_options(broker_priority=1000)
    with pytest.raises(TypeError, match="no argument"):
        StiQueueBroker(prot=1)
    with pytest.raises(InvalidRequest, match="port"):
        StiQueueBroker(port=70_000)


def test_an_absent_server_is_dramatiqs_error() -> None:
    broker = StiQueueBroker(port=free_port(), timeout=0.2)
    broker.declare_queue("default")
    with pytest.raises(ConnectionClosed, match="is a server running there"):
        broker.enqueue(dramatiq.Message("default", "note", (), {}, {}))
    broker.close()


@pytest.fixture
def actors(durable: ServerProcess) -> Iterator[Any]:
    """The application's actors, as a producer has them."""
    broker = StiQueueBroker(port=durable.port)
    broker.declare_queue("default")

    def send(name: str, *arguments: Any, delay: int | None = None) -> None:
        broker.enqueue(dramatiq.Message("default", name, arguments, {}, {}), delay=delay)

    yield send
    broker.close()


def worker(begin: Begin, processes: int = 1, threads: int = 2) -> Program:
    return begin("-m", "dramatiq", "dramatiq_app", "-p", str(processes), "-t", str(threads))


def test_a_message_of_a_killed_worker_starts_elsewhere(
    begin: Begin, actors: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    first = worker(begin)
    actors("hold", "a", 60)
    assert seen() == "begin a"
    worker(begin)
    until(lambda: observer.counts(queue="default").consumers, 2)
    first.kill()
    assert seen() == "begin a"


def test_processes_stop_and_retry(begin: Begin, actors: Any, seen: Callable[[], str], observer: SQClient) -> None:
    program = worker(begin, processes=2)
    actors("fail")
    assert [seen() for _ in range(3)] == ["tried"] * 3
    until(lambda: observer.cnt(queue="default.dead"), 1)
    assert program.stop() == 0


def test_a_killed_server_loses_nothing(
    begin: Begin, actors: Any, seen: Callable[[], str], durable: ServerProcess, observer: SQClient
) -> None:
    worker(begin)
    done: Counter[int] = Counter()
    for number in range(300):
        actors("mark", number)
        if number in (100, 200):
            done[int(seen())] += 1  # so that it is killed while messages are worked on
            assert durable.process is not None
            durable.process.kill()
            durable.wait()
            durable.start()
    while len(done) < 300:
        done[int(seen())] += 1
    until(lambda: observer.counts(queue="default").leased, 0)


def delayed(begin: Begin, actors: Any, seen: Callable[[], str], observer: SQClient, number: int, delay: int) -> None:
    worker(begin)
    for each in range(number):
        actors("mark", each, delay=delay)
    counts = observer.counts(queue="default")
    assert (counts.delayed, counts.leased) == (number, 0)
    until(lambda: observer.counts(queue="default").delayed, 0, within=300)
    assert Counter(int(seen()) for _ in range(number)) == Counter(range(number))


def test_delayed_messages_wait_in_the_server(
    begin: Begin, actors: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    delayed(begin, actors, seen, observer, 100, 8_000)
