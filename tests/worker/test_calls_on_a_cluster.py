"""Calls, and recurring jobs, on the engine for a cluster: it answers and acks in two steps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stiqueue import RemoteError, Schedule, SQClient, SQServer, Worker
from stiqueue.testing import FakeClock
from tests.support.nats_servers import NatsServer
from tests.support.waiting import PATIENCE, Call, until

pytest.importorskip("nats")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQServer]:
    nats = NatsServer(tmp_path_factory.mktemp("nats"))
    try:
        nats.start()
        with SQServer(port=0, engine=nats.address, replicas=1) as server:
            yield server
    finally:
        nats.end()


@pytest.fixture
def client(cluster: SQServer) -> Iterator[SQClient]:
    with SQClient(port=cluster.port) as client:
        yield client


def left(client: SQClient) -> dict[str, tuple[int, int]]:
    return {name: (each.ready, each.leased) for name, each in client.queues().items() if each.ready or each.leased}


def test_calls_are_answered(cluster: SQServer, client: SQClient) -> None:
    def square(message: bytes) -> str:
        return str(int(message) ** 2)

    worker = Worker(square, "squares", port=cluster.port)
    running = Call(worker.run)
    calls = [Call(client.call, str(number), queue="squares") for number in range(20)]
    assert [int(call.result()) for call in calls] == [number**2 for number in range(20)]
    with pytest.raises(RemoteError, match="ValueError: invalid literal"):
        client.call("x", queue="squares")
    until(lambda: left(client), {})
    worker.stop()
    running.result()


def test_a_call_answered_twice_gets_one_answer(cluster: SQServer, client: SQClient) -> None:
    """A worker that dies between its answer and its ack lets another one answer as well."""
    calling = Call(client.call, "7", queue="twice")
    with SQClient(port=cluster.port, auto_ack=False) as first:
        message = first.deq(queue="twice")
        headers = {"stiqueue-correlation-id": message.headers["stiqueue-correlation-id"]}
        first.enq(
            "first",
            queue=message.headers["stiqueue-reply-to"],
            headers=headers,
            request_id=headers["stiqueue-correlation-id"],
        )
        message.requeue(delay=0)
        assert calling.result() == b"first"
        first.deq(queue="twice").reply("second")
    until(lambda: left(client), {})


@pytest.mark.slow
def test_runs_come_once_and_are_made_up_for(cluster: SQServer, client: SQClient) -> None:
    clock = FakeClock(wall=1_767_225_630.0)

    def schedule() -> Schedule:
        made = Schedule(client, clock=clock.wall)
        made.add("job", cron="* * * * *", queue="jobs", missed="all")
        made.enq_due()
        return made

    runners = [schedule() for _ in range(2)]
    for _ in range(60):  # so many that marks are joined
        clock.advance(60)
        for runner in runners:
            runner.enq_due()
    del runners
    clock.advance(300)
    schedule()
    messages = [client.deq(timeout=PATIENCE, queue="jobs") for _ in range(65)]
    assert client.deq(timeout=0.5, queue="jobs") is None
    runs = [message.headers["stiqueue-cron-time"] for message in messages if message is not None]
    assert len(runs) == len(set(runs)) == 65
    assert client.cnt(queue="stiqueue-cron") < 60
