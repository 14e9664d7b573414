"""The clients when the server is killed or hangs, among many threads, and when very many come at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.processes import ServerProcess, process_state
from faults.proxy import Proxy
from support.ports import free_port
from support.waiting import PATIENCE, Call, until

from stiqueue import AsyncSQClient, SQClient, SQServer, Unavailable

from .conftest import Connect

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="needs signals"),
]
killed = pytest.mark.scenario("server is killed (`kill -9`)")
hangs = pytest.mark.scenario("server hangs (SIGSTOP)")
restarts = pytest.mark.scenario("server restarts")

BACK_SECONDS = 2.0
"""How soon after the server is back everything goes on."""
CONNECTS_PER_SECOND = 20
SLACK = 8.0
"""What a busy machine may add to it."""


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server with a data file, in a process of its own."""
    server = ServerProcess(tmp_path, environment={"STIQUEUE_DATA": str(tmp_path / "stiqueue.db")})
    server.start()
    yield server
    server.end()


def kill(server: ServerProcess) -> None:
    assert server.process is not None
    server.process.kill()
    server.process.wait(PATIENCE)


@pytest.mark.slow
@killed
def test_nothing_is_lost_or_doubled_when_the_server_is_killed_again_and_again(
    connect: Connect, durable: ServerProcess
) -> None:
    """A producer and a consumer that know nothing of it, over three kills."""
    producer, consumer = connect(durable.port), connect(durable.port, auto_ack=False)
    enough = threading.Event()
    acked: list[bytes] = []
    seen: list[bytes] = []

    def produce() -> int:
        number = 0
        while not enough.is_set():
            producer.enq(str(number))
            number += 1
        return number

    def consume() -> None:
        while (message := consumer.deq(timeout=1 if enough.is_set() else None)) is not None:
            seen.append(bytes(message))
            if message.ack():
                assert bytes(message) not in acked, "acked, and delivered again"
                acked.append(bytes(message))
            if message == b"end":
                return

    producing, consuming = Call(produce), Call(consume)
    for _ in range(3):
        before = len(acked)
        until(lambda before=before: len(acked) > before + 50, within=PATIENCE * 2)  # type: ignore[misc]
        kill(durable)
        durable.start()
    before = len(acked)
    until(lambda: len(acked) > before + 50, within=PATIENCE * 2)
    enough.set()
    number = producing.result()
    producer.enq("end")
    consuming.result()
    assert set(map(int, set(seen) - {b"end"})) == set(range(number)), "something is lost or invented"
    with SQClient(port=durable.port) as other:
        assert other.queues() == {}


@pytest.mark.slow
@killed
def test_31_a_retry_after_a_kill_enqueues_once(connect: Connect, durable: ServerProcess) -> None:
    """The answer is lost, then the server dies: it remembers the request in its data file."""
    with Proxy(durable.target) as proxy:
        client = connect(int(proxy.target.rpartition(":")[2]))
        client.cnt()
        for number, call in enumerate([lambda: client.enq("a"), lambda: client.enq_many(["b"] * 100)]):
            proxy.lose_next_answer()
            calling = Call(call)
            assert proxy.answer_lost.wait(PATIENCE)
            kill(durable)
            durable.start()
            assert calling.result() == (1, 100)[number]
    with SQClient(port=durable.port) as other:
        found = other.peek_messages()
        assert [message.id for message in found] == list(range(1, 102)), "all of the batch, once"


@pytest.mark.slow
@killed
def test_32_an_ack_whose_answer_is_lost_is_final_although_the_server_is_killed(
    connect: Connect, durable: ServerProcess
) -> None:
    with Proxy(durable.target) as proxy, SQClient(port=durable.port) as other:
        other.enq("a")
        client = connect(int(proxy.target.rpartition(":")[2]))
        message = client.deq()
        proxy.lose_next_answer()
        settling = Call(message.ack)
        assert proxy.answer_lost.wait(PATIENCE)
        kill(durable)
        durable.start()
        settling.result()  # True or False: whether the first or the second ack took effect, it cannot know
        assert other.queues() == {}


def reconnect(connect: Connect, times: int, away: float) -> None:
    """Restart the server again and again, while a client enqueues and another waits and consumes."""
    gone_on: list[float] = []
    with SQServer(port=free_port()) as first:
        port = first.port
    with Proxy(f"127.0.0.1:{port}") as proxy:
        target = int(proxy.target.rpartition(":")[2])
        client = connect(target)
        stopped = threading.Event()
        taken: list[int] = []

        def consume() -> None:
            for message in client.consume(prefetch=10):
                taken.append(int(message))
                if message == b"-1":
                    return

        def produce() -> None:
            number = 0
            while not stopped.is_set():
                client.enq(str(number))
                number += 1
                stopped.wait(0.005)
            client.enq("-1")

        calls = [Call(consume), Call(produce)]
        for number in range(times):
            before, began = proxy.connections, time.monotonic()
            stopped.wait(away)
            connects = (proxy.connections - before) / (time.monotonic() - began)
            assert connects <= CONNECTS_PER_SECOND, f"{connects:.0f} connects/s while it was away"
            with SQServer(port=port):
                back, had = time.monotonic(), len(taken)
                until(lambda had=had: len(taken) > had)  # type: ignore[misc]
                gone_on.append(time.monotonic() - back)
                assert not any(call.is_over() for call in calls), "an exception reached the user"
                if number == times - 1:
                    stopped.set()
                    for call in calls:
                        call.result()
    print("gone on after", [f"{seconds:.2f}" for seconds in gone_on])
    assert max(gone_on) <= BACK_SECONDS + SLACK


@pytest.mark.slow
@restarts
def test_30_both_ways_go_on_after_each_restart(connect: Connect) -> None:
    reconnect(connect, times=3, away=0.5)


@restarts
@pytest.mark.slow
def test_30_both_ways_go_on_after_ten_restarts(connect: Connect) -> None:
    reconnect(connect, times=10, away=1.0)


@pytest.mark.slow
@hangs
def test_calls_to_a_server_that_hangs_give_up_in_time_and_say_why(connect: Connect, durable: ServerProcess) -> None:
    client = connect(durable.port, timeout=1.0)
    client.enq("before", timeout=PATIENCE)
    os.kill(durable.pid, signal.SIGSTOP)
    until(lambda: process_state(durable.pid), "T")
    for call in lambda: client.enq("meanwhile"), client.cnt, client.peek:
        begin = time.monotonic()
        with pytest.raises(Unavailable, match="within 1 s"):
            call()
        assert time.monotonic() - begin < 1.0 + SLACK
    os.kill(durable.pid, signal.SIGCONT)
    assert client.enq("after", timeout=PATIENCE) > 0
    assert client.deq(timeout=PATIENCE) == b"before"


def wait_while_it_hangs(client: Any, server: ServerProcess, seconds: float) -> tuple[bytes, int]:
    """Let a `deq` and an `enq` wait for a server that hangs for so long; return what they return."""
    waiting = Call(client.deq, queue="waiting")
    with SQClient(port=server.port) as other:
        until(lambda: other.counts(queue="waiting").consumers, 1)
    os.kill(server.pid, signal.SIGSTOP)
    calling = Call(client.enq, "a")
    assert not calling.is_over(seconds)
    assert not waiting.is_over()
    os.kill(server.pid, signal.SIGCONT)
    number = calling.result()
    with SQClient(port=server.port) as other:
        other.enq("b", queue="waiting")
        message = waiting.result()
        assert message is not None
        assert other.cnt() == 1, "enqueued twice"
        assert message.ack()
    return bytes(message), number


@pytest.mark.slow
@hangs
def test_calls_outlive_a_server_that_hangs_for_a_moment(connect: Connect, durable: ServerProcess) -> None:
    assert wait_while_it_hangs(connect(durable.port), durable, 1.0) == (b"b", 1)


@hangs
@pytest.mark.soak
def test_calls_outlive_a_server_that_hangs_for_40_s(connect: Connect, durable: ServerProcess) -> None:
    """Longer than the pings notice, so that connections are closed and opened anew."""
    assert wait_while_it_hangs(connect(durable.port, timeout=100.0), durable, 40.0) == (b"b", 1)


@hangs
@pytest.mark.slow
def test_07_an_idle_client_notices_that_the_server_hangs(connect: Connect, durable: ServerProcess) -> None:
    """Pings go on although nothing is sent for 15 s; then a `deq` that waits says within 8 s + `timeout` why not."""
    client = connect(durable.port, timeout=1.0)
    waiting = Call(client.deq)
    assert not waiting.is_over(15.0)
    begin = time.monotonic()
    os.kill(durable.pid, signal.SIGSTOP)
    with pytest.raises(Unavailable):
        waiting.result()
    assert time.monotonic() - begin < 8.0 + 1.0 + SLACK


@pytest.mark.scenario("threads", client="SQClient")
def test_threads_share_a_client_while_the_server_restarts(tmp_path: Path) -> None:
    data = str(tmp_path / "stiqueue.db")
    with SQServer(port=free_port(), data=data) as server:
        port = server.port
    with SQClient(port=port) as client:

        def work(thread: int) -> None:
            for number in range(100):
                client.enq(f"{thread}-{number}")

        calls = [Call(work, thread) for thread in range(8)]
        for most in 200, 400, 600, None:
            with SQServer(port=port, data=data), SQClient(port=port) as other:
                if most is None:
                    for call in calls:
                        call.result()
                else:
                    until(lambda other=other, most=most: other.cnt() >= most)  # type: ignore[misc]
        with SQServer(port=port, data=data):
            assert sorted(client.peek().decode().split(",")) == sorted(
                f"{thread}-{number}" for thread in range(8) for number in range(100)
            )


def stampede_of_tasks(port: int, number: int, restart: Callable[[], None]) -> None:
    """Let so many tasks wait for a message each, through a restart of the server."""

    async def main() -> None:
        async with AsyncSQClient(port=port, timeout=180.0) as client:
            waiting = [asyncio.ensure_future(client.deq()) for _ in range(number)]
            await asyncio.to_thread(restart)
            await client.enq_many(map(str, range(number)))
            served = await asyncio.wait_for(asyncio.gather(*waiting), 180.0)
            assert sorted(int(message or b"-1") for message in served) == list(range(number))

    asyncio.run(main())


def stampede_of_threads(port: int, number: int, restart: Callable[[], None]) -> None:
    with SQClient(port=port, timeout=180.0) as client:
        waiting = [Call(client.deq) for _ in range(number)]
        restart()
        client.enq_many(map(str, range(number)))
        assert sorted(int(call.result() or b"-1") for call in waiting) == list(range(number))


@pytest.mark.slow
@pytest.mark.scenario("thousands at once")
@pytest.mark.parametrize("part", [5, pytest.param(1, marks=pytest.mark.soak)])
def test_33_very_many_wait_at_once_and_again_after_a_restart(kind: str, part: int, tmp_path: Path) -> None:
    """5,000 tasks, or as many threads as a machine has room for; or a fifth of them."""
    server = ServerProcess(tmp_path)
    number, stampede = (1_000, stampede_of_threads) if kind == "SQClient" else (5_000, stampede_of_tasks)
    number //= part
    took: list[float] = []

    def all_wait(other: SQClient) -> None:
        begin = time.monotonic()
        until(lambda: other.counts(timeout=30.0).consumers, number, within=180.0)
        took.append(time.monotonic() - begin)

    def restart() -> None:
        with SQClient(port=server.port, timeout=30.0) as other:
            all_wait(other)
            server.process.send_signal(signal.SIGTERM)  # type: ignore[union-attr]
            assert server.wait(30.0) == 0
            server.start()
            all_wait(other)

    server.start()
    try:
        stampede(server.port, number, restart)
    finally:
        server.end()
    print("all wait after", [f"{seconds:.1f} s" for seconds in took])
