"""`enq_soon` when the server is away, comes back, or its answer is lost; and at the end of tasks and of programs."""

from __future__ import annotations

import asyncio
import gc
import threading
from concurrent.futures import Future
from pathlib import Path

import pytest
from faults.proxy import Proxy
from support.ports import free_port
from support.waiting import Call, run_python, until

from stiqueue import AsyncSQClient, SQClient, SQServer, Unavailable

from .conftest import Connect


@pytest.fixture
def absent() -> int:
    """A port at which a server was, and is no longer."""
    port = free_port()
    with SQServer(port=port):
        return port


def bodies(client: SQClient) -> list[bytes]:
    return [bytes(message) for message in client.consume(prefetch=1000, timeout=0)]


@pytest.mark.scenario("server stays away")
def test_a_full_window_blocks_until_the_timeout(connect: Connect, absent: int) -> None:
    client = connect(absent, window=3, timeout=30)
    futures = [client.enq_soon(str(number)) for number in range(3)]
    with pytest.raises(Unavailable, match="3 messages are unconfirmed") as full:
        client.enq_soon("d", timeout=0.05)
    assert full.value.is_refusal
    with pytest.raises(Unavailable, match="not confirmed"):
        client.flush(timeout=0.05)
    waiting = Call(client.enq_soon, "d")
    assert not waiting.is_over(0.1)
    with SQServer(port=absent), SQClient(port=absent) as other:
        assert waiting.result().result(30) == 4
        assert [future.result(0) for future in futures] == [1, 2, 3]
        assert bodies(other) == [b"0", b"1", b"2", b"d"]


@pytest.mark.scenario("server stays away")
def test_each_fails_after_its_timeout_and_close_tells(connect: Connect, absent: int) -> None:
    client = connect(absent, timeout=0.2)
    futures = [client.enq_soon(str(number)) for number in range(10)]
    assert isinstance(futures[0].exception(20), Unavailable)
    with pytest.raises(Unavailable):
        client.flush()
    assert all(isinstance(future.exception(0), Unavailable) for future in futures)
    client.enq_soon("last")
    if isinstance(client, SQClient):
        with pytest.raises(Unavailable):
            client.close()
    else:
        with pytest.raises(Unavailable):
            client.flush()


@pytest.mark.scenario("connection is reset, or an answer lost")
def test_a_lost_connection_loses_nothing_doubles_nothing_and_keeps_the_order(
    connect: Connect, server: SQServer, client: SQClient
) -> None:
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        ours = connect(int(proxy.target.rpartition(":")[2]))
        futures = []
        for number in range(3_000):
            if number % 500 == 250:
                proxy.reset()
            futures.append(ours.enq_soon(str(number)))
        ours.flush()
        assert [future.result(0) for future in futures] == list(range(1, 3_001))
        ours.close()
    assert bodies(client) == [str(number).encode() for number in range(3_000)]


@pytest.mark.slow
@pytest.mark.scenario("server restarts")
def test_a_restart_of_a_durable_server_loses_nothing(connect: Connect, tmp_path: Path) -> None:
    port, data = free_port(), str(tmp_path / "stiqueue.db")
    server = SQServer(port=port, data=data)
    server.start()
    client = connect(port)
    producer = Call(lambda: [client.enq_soon(str(number)) for number in range(5_000)])
    with SQClient(port=port) as other:
        until(lambda: other.cnt() > 0)
    server.stop()
    with SQServer(port=port, data=data), SQClient(port=port) as other:
        futures = producer.result()
        client.flush()
        assert len({future.result(0) for future in futures}) == 5_000
        assert bodies(other) == [str(number).encode() for number in range(5_000)]
        client.close()


ENDS = {
    "the end of the program": "",
    "sys.exit": "sys.exit(0)",
    "an exception": "sys.stderr = open(os.devnull, 'w'); 1 / 0",
}


@pytest.mark.scenario("interpreter ends", client="SQClient")
@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
def test_the_end_of_the_interpreter_waits(server: SQServer, client: SQClient, end: str) -> None:
    program = f"""
import os, sys
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]))
for number in range(900):
    client.enq_soon(str(number))
{end}
"""
    done = run_python(program, server.port)
    assert (done.stdout, done.stderr) == ("", "")
    assert bodies(client) == [str(number).encode() for number in range(900)]


@pytest.mark.scenario("interpreter ends", client="SQClient")
def test_the_end_of_the_interpreter_tells_what_failed(absent: int) -> None:
    done = run_python(
        """
import sys
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]), timeout=0.2)
client.enq_soon("a")
""",
        absent,
    )
    assert "not confirmed: no answer" in done.stderr


def test_a_dropped_client_still_sends_what_it_has(server: SQServer, client: SQClient) -> None:
    def produce() -> None:
        ours = SQClient(port=server.port)
        for number in range(100):
            ours.enq_soon(str(number))

        del ours
        until(client.cnt, 100)
        until(companions, 0)

    def companions() -> int:
        gc.collect()
        return sum(thread.name == "stiqueue-enq-soon" for thread in threading.enumerate())

    with pytest.warns(ResourceWarning, match="unclosed client"):
        produce()


def test_a_cancelled_future_of_threads_cancels_a_message_that_is_not_sent(absent: int) -> None:
    client = SQClient(port=absent)
    sent = client.enq_soon("a")
    until(sent.running)
    assert not sent.cancel()
    futures = [client.enq_soon(body) for body in "bcd"]
    assert futures[1].cancel()
    with SQServer(port=absent), client, SQClient(port=absent) as other:
        client.flush()
        assert [sent.result(0), futures[0].result(0), futures[2].result(0)] == [1, 2, 3]
        assert bodies(other) == [b"a", b"b", b"d"]


def test_a_callback_may_hand_over_more_and_must_not_wait_for_itself(absent: int) -> None:
    client = SQClient(port=absent, window=1)
    outcomes: list[Exception] = []

    def more(_: Future[int]) -> None:
        try:
            client.enq_soon("b")
            client.flush()
        except Exception as error:
            outcomes.append(error)

    client.enq_soon("a").add_done_callback(more)
    with SQServer(port=absent), client, SQClient(port=absent) as other:
        client.flush()
        client.flush()  # also for what the callback has handed over
        (error,) = outcomes
        assert isinstance(error, RuntimeError)
        assert bodies(other) == [b"a", b"b"]


def test_a_client_may_be_closed_by_a_callback(absent: int) -> None:
    client = SQClient(port=absent)
    ended = threading.Event()

    def close(_: Future[int]) -> None:
        client.close()
        ended.set()

    client.enq_soon("a").add_done_callback(close)
    with SQServer(port=absent), SQClient(port=absent) as other:
        assert ended.wait(30)
        assert other.cnt() == 1


def test_a_cancelled_task_disturbs_no_other(server: SQServer, client: SQClient) -> None:
    async def main() -> None:
        async with AsyncSQClient(port=server.port) as ours:
            first = await ours.enq_soon("a")
            second = await ours.enq_soon("b")
            first.cancel()
            assert await second in (1, 2)
            third = await ours.enq_soon("c")
            await asyncio.sleep(0)  # it is under way
            third.cancel()
            assert await (await ours.enq_soon("d")) > 1

    asyncio.run(main())
    assert {b"b", b"d"} <= set(bodies(client))


def test_a_task_that_waits_for_room_can_be_cancelled(absent: int) -> None:
    async def main() -> None:
        ours = AsyncSQClient(port=absent, window=1, timeout=30)
        first = await ours.enq_soon("a")
        waiting = asyncio.ensure_future(ours.enq_soon("b"))
        await asyncio.wait([waiting], timeout=0.05)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with SQServer(port=absent):
            assert await first == 1
            assert await (await ours.enq_soon("c")) == 2
            await ours.close()

    asyncio.run(main())


def test_the_end_of_asyncio_run_waits(server: SQServer, client: SQClient) -> None:
    async def main() -> AsyncSQClient:
        ours = AsyncSQClient(port=server.port)
        for number in range(900):
            await ours.enq_soon(str(number))
        return ours

    assert asyncio.run(main()) is not None
    assert bodies(client) == [str(number).encode() for number in range(900)]


@pytest.mark.scenario("fork", client="SQClient")
def test_a_fork_leaves_the_messages_to_the_parent(server: SQServer, client: SQClient) -> None:
    done = run_python(
        """
import os, sys, warnings
from stiqueue import SQClient
warnings.simplefilter("ignore", DeprecationWarning)
client = SQClient(port=int(sys.argv[1]))
for number in range(300):
    client.enq_soon(str(number))
pid = os.fork()
client.enq_soon("of the child" if pid == 0 else "of the parent")
client.close()
if pid == 0:
    os._exit(0)
print(os.waitpid(pid, 0)[1])
""",
        server.port,
    )
    assert (done.stdout, done.stderr) == ("0\n", "")
    taken = bodies(client)
    assert [body for body in taken if body.isdigit()] == [str(number).encode() for number in range(300)]
    assert sorted(body for body in taken if not body.isdigit()) == [b"of the child", b"of the parent"]
