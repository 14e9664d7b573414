"""The broker of Taskiq: in this process, and under its worker processes that are killed."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from faults.processes import ServerProcess
from support.waiting import soon, until
from taskiq.exceptions import SendTaskError
from taskiq.receiver import Receiver

from stiqueue import AccessDenied, AsyncSQClient, InvalidRequest, SQClient, SQServer
from stiqueue.adapters.taskiq import StiQueueBroker

from .conftest import Begin, Program


@asynccontextmanager
async def working(broker: StiQueueBroker, tasks: int = 10) -> AsyncIterator[asyncio.Event]:
    """Run a worker of Taskiq in this event loop."""
    broker.is_worker_process = True
    finish = asyncio.Event()
    receiver = Receiver(broker, max_async_tasks=tasks)
    running = asyncio.create_task(receiver.listen(finish))
    try:
        yield finish
    finally:
        finish.set()
        await running
        await broker.shutdown()


def test_tasks_run_and_are_acked(server: SQServer, client: SQClient) -> None:
    async def main() -> None:
        broker, seen = StiQueueBroker(port=server.port), []

        @broker.task
        async def note(number: int) -> None:
            seen.append(number)

        async with working(broker):
            for number in range(20):
                await note.kiq(number)

            async def acked() -> int:
                return client.counts(queue="taskiq").acked

            await soon(acked, 20)
        assert sorted(seen) == list(range(20))

    asyncio.run(main())
    assert client.counts(queue="taskiq").consumers == 0


def test_labels_are_the_servers(server: SQServer, client: SQClient) -> None:
    async def main() -> None:
        broker = StiQueueBroker(port=server.port, queue="jobs")

        @broker.task(priority=5)
        async def note() -> None: ...

        await note.kiq()
        await note.kicker().with_labels(priority=9).kiq()
        await note.kicker().with_labels(delay=3600).kiq()
        await note.kicker().with_labels(queue_name="other").kiq()
        with pytest.raises(SendTaskError) as refused:
            await note.kicker().with_labels(priority=1000).kiq()
        assert isinstance(refused.value.__cause__, InvalidRequest)
        await broker.shutdown()

    asyncio.run(main())
    assert [message.priority for message in client.peek_messages(queue="jobs")] == [9, 5]
    assert client.counts(queue="jobs").delayed == 1
    assert client.cnt(queue="other") == 1


def test_a_stopping_worker_finishes_its_tasks_and_gives_back_the_others(server: SQServer, client: SQClient) -> None:
    async def main() -> None:
        broker, begun, allowed = StiQueueBroker(port=server.port, prefetch=5), [], asyncio.Event()

        @broker.task
        async def wait(number: int) -> None:
            begun.append(number)
            await allowed.wait()

        for number in range(10):
            await wait.kiq(number)
        async with working(broker, tasks=2) as finish:

            async def leased() -> tuple[int, int]:
                return len(begun), client.counts(queue="taskiq").leased

            await soon(leased, (2, 5))
            finish.set()

            async def ready() -> int:
                return client.cnt(queue="taskiq")

            await soon(ready, 8)
            allowed.set()
        assert begun == [0, 1]

    asyncio.run(main())
    counts = client.counts(queue="taskiq")
    assert (counts.acked, counts.ready, counts.leased) == (2, 8, 0)
    assert [message.attempt for message in client.peek_messages(queue="taskiq")] == [0] * 8


def test_bad_input_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prefetch: 0"):
        StiQueueBroker(prefetch=0)
    with pytest.raises(TypeError, match="no argument"):
        StiQueueBroker(prot=1)


def test_a_worker_without_the_right_is_told_so_once(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("producer-0123456789 enq\n")
    file.chmod(0o600)
    told: list[dict[str, Any]] = []

    async def listen(port: int) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
        broker = StiQueueBroker(port=port, token="producer-0123456789")
        with pytest.raises(AccessDenied, match="no right to deq"):
            await anext(broker.listen())
        await broker.shutdown()
        gc.collect()  # a task whose error nobody has seen tells of it when it goes

    with SQServer(port=0, tokens=str(file)) as server:
        asyncio.run(listen(server.port))
    assert told == []


@pytest.fixture
def kick(durable: ServerProcess) -> Callable[..., None]:
    """Send a task of the application."""

    def kick(name: str, *arguments: Any, **labels: Any) -> None:
        async def send() -> None:
            broker = StiQueueBroker(port=durable.port)
            task: Callable[..., Coroutine[Any, Any, None]] = broker.task(name)(_nothing)
            await task.kicker().with_labels(**labels).kiq(*arguments)  # type: ignore[attr-defined]
            await broker.shutdown()

        asyncio.run(send())

    return kick


async def _nothing(*arguments: Any) -> None: ...


def worker(begin: Begin, tasks: int = 10) -> Program:
    options = ["-w", "1", "--max-async-tasks", str(tasks)]
    return begin("-m", "taskiq", "worker", "taskiq_app:broker", *options, PREFETCH=str(tasks))


def test_a_task_of_a_killed_worker_starts_elsewhere(
    begin: Begin, kick: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    first = worker(begin)
    kick("hold", "a", 60)
    assert seen() == "begin a"
    worker(begin)
    until(lambda: observer.counts(queue="taskiq").consumers, 2)
    first.kill()
    assert seen() == "begin a"


def test_a_worker_process_stops(begin: Begin, kick: Any, seen: Callable[[], str], observer: SQClient) -> None:
    program = worker(begin)
    kick("hold", "a", 1)
    assert seen() == "begin a"
    program.process.terminate()
    assert seen() == "end a"
    assert program.process.wait(20) == 0
    assert observer.counts(queue="taskiq").acked == 1


def test_a_killed_server_loses_nothing(
    begin: Begin, seen: Callable[[], str], durable: ServerProcess, observer: SQClient
) -> None:
    worker(begin)
    done: Counter[int] = Counter()

    def restart() -> None:
        done[int(seen())] += 1  # so that it is killed while tasks run
        assert durable.process is not None
        durable.process.kill()
        durable.wait()
        durable.start()

    async def main() -> None:
        broker = StiQueueBroker(port=durable.port)
        mark = broker.task("mark")(_nothing)
        for number in range(300):
            await mark.kiq(number)
            if number in (100, 200):
                await asyncio.to_thread(restart)
        await broker.shutdown()

    asyncio.run(main())
    while len(done) < 300:
        done[int(seen())] += 1
    until(lambda: observer.counts(queue="taskiq").leased, 0)


def test_delayed_tasks_wait_in_the_server(
    begin: Begin, seen: Callable[[], str], durable: ServerProcess, observer: SQClient
) -> None:
    worker(begin)

    async def main() -> None:
        broker = StiQueueBroker(port=durable.port)
        mark = broker.task("mark")(_nothing)
        for number in range(100):
            await mark.kicker().with_labels(delay=8).kiq(number)
        async with AsyncSQClient(port=durable.port) as client:
            counts = await client.counts(queue="taskiq")
            assert (counts.delayed, counts.leased) == (100, 0)
        await broker.shutdown()

    asyncio.run(main())
    assert Counter(int(seen()) for _ in range(100)) == Counter(range(100))
