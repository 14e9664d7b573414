"""Workers of Celery, as processes: what they do with tasks, and what becomes of tasks when they or the server die."""

from __future__ import annotations

import importlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from faults.processes import ServerProcess
from support.waiting import until

from stiqueue import SQClient

from .conftest import Begin, Program

POOLS = ["prefork", "threads", "solo"]


@pytest.fixture
def tasks(durable: ServerProcess, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The application, as a producer has it."""
    monkeypatch.setenv("PORT", str(durable.port))
    monkeypatch.syspath_prepend(os.path.dirname(__file__))
    module = importlib.reload(importlib.import_module("celery_app"))
    yield module
    if module.app.backend.result_consumer._consumer is not None:  # nobody has asked for a result
        module.app.backend.result_consumer.stop()
    module.app.close()
    module.app.pool.force_close_all()
    module.tell.close()


def worker(begin: Begin, *arguments: str, pool: str = "prefork", processes: int = 1, **environment: str) -> Program:
    command = ["-m", "celery", "-A", "celery_app", "worker", "-P", pool, "-c", str(processes), "-l", "info"]
    return begin(*command, *arguments, **environment)


@pytest.mark.parametrize("pool", POOLS)
def test_tasks_results_retries_and_subtasks(begin: Begin, tasks: Any, seen: Callable[[], str], pool: str) -> None:
    program = worker(begin, pool=pool, processes=2)
    assert tasks.add.delay(1, 2).get(timeout=30) == 3
    assert tasks.unlucky.delay().get(timeout=30) == 2
    tasks.outer.delay()
    assert seen() == "7"
    assert program.stop() == 0


def test_replaced_children_work(begin: Begin, tasks: Any) -> None:
    """A child that is forked while the parent consumes can publish, too."""
    worker(begin, "--max-tasks-per-child", "2", processes=2)
    assert [tasks.add.delay(i, i).get(timeout=30) for i in range(12)] == [2 * i for i in range(12)]


@pytest.mark.parametrize("library", ["gevent", "eventlet"])
def test_pools_of_greenlets_are_refused(begin: Begin, library: str) -> None:
    program = worker(begin, pool=library)
    assert program.process.wait(30) != 0
    assert f"does not work where {library} has patched threads" in program.log


@pytest.mark.parametrize("pool", POOLS)
def test_a_task_of_a_killed_worker_starts_elsewhere(
    begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient, pool: str
) -> None:
    first = worker(begin, pool=pool, LATE="1")
    tasks.hold.delay("a", 60)
    assert seen() == "begin a"
    worker(begin, pool="solo", LATE="1")
    until(lambda: observer.counts(queue="celery").consumers, 2)
    first.kill()
    assert seen() == "begin a"


def test_a_stopping_worker_gives_back_what_it_has_not_begun(
    begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    first = worker(begin, pool="solo", LATE="1", MULTIPLIER="10")
    tasks.hold.delay("a", 3)
    assert seen() == "begin a"
    for name in "bcdef":
        tasks.hold.delay(name, 0)
    until(lambda: observer.counts(queue="celery").leased, 6)
    first.process.terminate()
    assert seen() == "end a"
    assert first.process.wait(20) == 0
    until(lambda: observer.counts(queue="celery").ready, 5)
    assert [message.attempt for message in observer.peek_messages(queue="celery")] == [0] * 5


def test_a_long_task_runs_once_while_others_wait(
    begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    """With a prefetch of one a second worker takes what the first one does not work on."""
    for _ in range(2):
        worker(begin, pool="solo", LATE="1", MULTIPLIER="1")
    until(lambda: observer.counts(queue="celery").consumers, 2)
    tasks.hold.delay("long", 5)
    assert seen() == "begin long"
    for number in range(20):
        tasks.mark.delay(number)
    assert sorted(int(seen()) for _ in range(20)) == list(range(20))
    assert seen() == "end long"
    assert observer.counts(queue="celery").requeued == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
@pytest.mark.parametrize("pool", POOLS)
def test_a_task_of_minutes_runs_once(
    begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient, pool: str
) -> None:
    """Nothing has to be set for it, and a connection on which nothing else happens lives on."""
    for _ in range(2):
        worker(begin, pool=pool, LATE="1")
    until(lambda: observer.counts(queue="celery").consumers, 2)
    tasks.hold.delay("long", 200)
    assert seen() == "begin long"
    ended = observer.deq(300, queue="seen")
    assert ended == b"end long"
    ended.ack()
    until(lambda: observer.counts(queue="celery").acked, 1)
    counts = observer.counts(queue="celery")
    assert (counts.requeued, counts.ready, counts.leased) == (0, 0, 0)


def due(begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient, number: int, seconds: float) -> None:
    """Let `number` tasks have an ETA while a worker works on others."""
    worker(begin, pool="threads", processes=2)
    for each in range(number):
        tasks.mark.apply_async([each], countdown=seconds)
    counts = observer.counts(queue="celery")
    assert (counts.delayed, counts.leased) == (number, 0)
    assert tasks.add.delay(1, 2).get(timeout=30) == 3
    until(lambda: observer.counts(queue="celery").delayed, 0, within=300)
    assert Counter(int(seen()) for _ in range(number)) == Counter(range(number))
    until(lambda: observer.counts(queue="celery").acked, number + 1)


def test_tasks_with_an_eta_wait_in_the_server(
    begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    due(begin, tasks, seen, observer, 100, 20)


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_ten_thousand_tasks_with_an_eta(begin: Begin, tasks: Any, seen: Callable[[], str], observer: SQClient) -> None:
    due(begin, tasks, seen, observer, 10_000, 180)


@pytest.mark.parametrize("pool", POOLS)
def test_a_killed_server_loses_nothing(
    begin: Begin, tasks: Any, seen: Callable[[], str], durable: ServerProcess, observer: SQClient, pool: str
) -> None:
    program = worker(begin, pool=pool, processes=2, LATE="1")
    done: Counter[int] = Counter()
    for number in range(300):
        tasks.mark.delay(number)
        if number in (100, 200):
            done[int(seen())] += 1  # so that it is killed while tasks run
            assert durable.process is not None
            durable.process.kill()
            durable.wait()
            durable.start()
    while len(done) < 300:
        done[int(seen())] += 1
    until(lambda: observer.counts(queue="celery").leased, 0)
    assert tasks.add.delay(1, 2).get(timeout=30) == 3
    assert program.stop() == 0
