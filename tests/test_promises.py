"""What docs/promises.md promises, a test for each promise: real consumer processes, a real server on a free port."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import IO, Any

import grpc
import grpc.aio
import pytest
from support.ports import free_port

from stiqueue import QueueFull, SQClient, SQServer, State, StoreInUse, Unavailable

ROOT = Path(__file__).parents[1]
PATIENCE = 60.0
"""Seconds that a process may take to start, or a call that must succeed, on a busy machine."""

ENVIRONMENT = {name: text for name, text in os.environ.items() if not name.startswith("STIQUEUE_")}
ENVIRONMENT["PYTHONPATH"] = str(ROOT)

HOLD = """
import os, sys
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]), ack_required={ack_required})
print(client.deq().decode(), flush=True)
sys.stdin.readline()
{then}
"""
"""A consumer that takes a message, says which, waits for a word of the test and ends."""

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs the signals of POSIX")


class ServerProcess:
    """The command, with a data file."""

    def __init__(self, data: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "stiqueue.sqserver", "--port", "0", "--data", str(data)],
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stderr is not None
        self.said = first_line(self.process, self.process.stderr)
        found = re.search(r" on 127\.0\.0\.1:(\d+),", self.said)
        if found is None:
            self.kill()
            pytest.fail(f"the server did not start: {self.said}")
        self.port = int(found[1])

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(self, *error: object) -> None:
        self.kill()


def first_line(process: subprocess.Popen[str], stream: IO[str]) -> str:
    """Return the first line that a process writes; give up on a process that writes none."""
    watchdog = threading.Timer(PATIENCE, process.kill)
    watchdog.start()
    try:
        return stream.readline().rstrip("\n")
    finally:
        watchdog.cancel()


class Consumer:
    """A process that took a message and holds it."""

    def __init__(self, port: int, then: str, ack_required: bool = True) -> None:
        program = HOLD.format(then=then, ack_required=ack_required)
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        assert self.process.stdout is not None
        self.message = first_line(self.process, self.process.stdout)

    def end(self) -> str:
        """Let it go on to its end, and wait for that; return what it wrote to stderr."""
        _, errors = self.process.communicate("go on\n", timeout=PATIENCE)
        return errors

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def hold() -> Iterator[Callable[..., Consumer]]:
    """Return a function that starts a consumer and returns once it holds a message."""
    consumers: list[Consumer] = []

    def start(*arguments: Any, **options: Any) -> Consumer:
        consumers.append(Consumer(*arguments, **options))
        return consumers[-1]

    yield start
    for consumer in consumers:
        consumer.close()


def expect(value: Any, read: Callable[[], Any], within: float) -> None:
    """Wait until `read` returns `value`, for up to `within` seconds."""
    deadline = time.monotonic() + within
    while (found := read()) != value:
        assert time.monotonic() < deadline, f"{found!r} instead of {value!r} after {within:g} s"
        time.sleep(0.005)


# -- delivery ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [pytest.param("SIGKILL", marks=posix), "os._exit", "exception"])
@pytest.mark.alone
def test_what_a_dead_consumer_held_is_back_within_a_second(
    server: SQServer, client: SQClient, hold: Callable[..., Consumer], end: str
) -> None:
    client.enq_many(["A", "B", "C"])
    then = {"os._exit": "os._exit(0)", "exception": "raise RuntimeError('a bug')"}.get(end, "")
    consumer = hold(server.port, then)
    assert consumer.message == "A"
    assert client.peek() == b"B,C"

    if end == "SIGKILL":
        consumer.process.kill()
        assert consumer.process.wait(PATIENCE) == -signal.SIGKILL
    else:
        assert ("RuntimeError: a bug" in consumer.end()) == (end == "exception")
    expect(b"A,B,C", client.peek, within=1.0)
    assert [message.attempt for message in client.peek_messages()] == [1, 0, 0]


@pytest.mark.alone
def test_a_clean_exit_acks(server: SQServer, client: SQClient, hold: Callable[..., Consumer]) -> None:
    client.enq_many(["A", "B", "C"])
    consumer = hold(server.port, "")
    assert consumer.message == "A"
    assert consumer.end() == ""
    assert consumer.process.returncode == 0
    expect(b"B,C", client.peek, within=1.0)
    assert client.counts().acked == 1


@pytest.mark.alone
def test_an_exception_in_a_with_block_gives_back(server: SQServer, client: SQClient) -> None:
    client.enq_many(["A", "B"])

    def work() -> None:
        with SQClient(port=server.port) as worker:
            assert worker.deq(timeout=PATIENCE) == b"A"
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        work()
    expect(b"A,B", client.peek, within=1.0)


@pytest.mark.alone
def test_an_acked_message_is_never_delivered_again(
    server: SQServer, client: SQClient, hold: Callable[..., Consumer]
) -> None:
    client.enq_many(["A", "B"])
    consumer = hold(server.port, "assert client.ack(); print('acked', flush=True); os._exit(1)")
    consumer.end()
    expect(b"B", client.peek, within=1.0)
    assert client.deq(timeout=PATIENCE) == b"B"
    assert client.deq(timeout=0.2) is None


def test_with_ack_required_false_a_message_is_delivered_at_most_once(
    server: SQServer, client: SQClient, hold: Callable[..., Consumer]
) -> None:
    client.enq_many(["A", "B"])
    consumer = hold(server.port, "os._exit(1)", ack_required=False)
    assert consumer.message == "A"
    consumer.end()
    expect(0, lambda: client.counts().consumers, within=PATIENCE)
    assert [message.decode() for message in client.peek_messages(state=State.ALL)] == ["B"]


@posix
@pytest.mark.alone
def test_what_a_stopped_consumer_held_is_back_after_keepalive(hold: Callable[..., Consumer]) -> None:
    with SQServer(port=0, keepalive=0.5, keepalive_timeout=0.5) as server, SQClient(port=server.port) as client:
        client.enq("A")
        consumer = hold(server.port, "")
        consumer.process.send_signal(signal.SIGSTOP)
        expect(b"A", client.peek, within=0.5 + 0.5 + 1.0)


def test_what_a_stuck_consumer_held_is_back_after_ack_timeout() -> None:
    with (
        SQServer(port=0, ack_timeout=0.3) as server,
        SQClient(port=server.port) as client,
        SQClient(port=server.port, ack_timeout=3_600) as other,
    ):
        client.enq("A")
        late = client.deq(timeout=PATIENCE)
        again = other.deq(timeout=PATIENCE)
        assert late is not None
        assert again is not None
        assert (late, late.attempt) == (b"A", 1)
        assert (again, again.attempt) == (b"A", 2)
        assert again.extend(PATIENCE) is True
        assert late.ack() is False
        assert client.counts().leased == 1, "a late ack settled the new delivery"
        assert again.ack() is True


KILLED_BY_A_MESSAGE = r"""
import os, signal, sys
from stiqueue import SQClient

for message in SQClient(port=int(sys.argv[1])).consume(prefetch=10):
    if message == b"deadly":
        os.kill(os.getpid(), signal.SIGKILL)
"""


@posix
def test_a_message_that_kills_its_worker_takes_none_that_was_sent_ahead_with_it() -> None:
    with SQServer(port=0, max_attempts=3) as server, SQClient(port=server.port) as client:
        client.enq_many(["deadly", *"abcdefghi"])
        for _ in range(3):
            worker = [sys.executable, "-c", KILLED_BY_A_MESSAGE, str(server.port)]
            assert subprocess.run(worker, timeout=PATIENCE, check=False).returncode == -signal.SIGKILL
            expect(0, lambda: client.counts().leased, within=PATIENCE)
        assert client.peek_messages(queue="default.dead") == [b"deadly"]
        assert [(message.decode(), message.attempt) for message in client.peek_messages()] == [
            (body, 0) for body in "abcdefghi"
        ]


def test_a_message_that_fails_too_often_becomes_a_dead_letter() -> None:
    with SQServer(port=0, max_attempts=2) as server, SQClient(port=server.port) as client:
        client.enq("poison")
        for attempt in 1, 2:
            message = client.deq(timeout=PATIENCE)
            assert message is not None
            assert message.attempt == attempt
            message.requeue()
        assert client.deq(timeout=0) is None
        (dead,) = client.peek_messages(queue="default.dead")
        assert dead == b"poison"
        assert dead.headers == {
            "stiqueue-dead-queue": "default",
            "stiqueue-dead-reason": "max-attempts",
            "stiqueue-dead-attempts": "2",
        }


# -- order ------------------------------------------------------------------------------------------------------------


def test_messages_come_by_priority_then_in_the_order_they_were_enqueued(client: SQClient) -> None:
    for body, priority in ("A", 0), ("B", 0), ("urgent", 9), ("C", 0):
        client.enq(body, priority=priority)
    assert [client.deq(timeout=PATIENCE) for _ in range(4)] == [b"urgent", b"A", b"B", b"C"]


def test_a_message_given_back_returns_to_its_old_place(client: SQClient) -> None:
    client.enq_many(["A", "B", "C"])
    assert client.deq(timeout=PATIENCE) == b"A"
    second = client.deq(timeout=PATIENCE)
    assert second == b"B"
    assert second.requeue()
    assert client.peek() == b"B,C"


# -- enqueueing -------------------------------------------------------------------------------------------------------


def test_when_enq_returns_every_other_client_sees_the_message(server: SQServer, client: SQClient) -> None:
    with SQClient(port=server.port) as other:
        for number in range(1, 101):
            assert client.enq(str(number)) == number
            assert other.cnt() == number


class LostReplies(grpc.aio.ServerInterceptor):  # type: ignore[misc, unused-ignore]
    """Lets the server enqueue, then breaks the call, so that the client cannot know."""

    def __init__(self, number: int) -> None:
        self.left = number

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        if handler_call_details.method.endswith("/Pipe"):
            return None  # UNIMPLEMENTED: clients make calls instead
        handler = await continuation(handler_call_details)
        if not handler_call_details.method.endswith("/Enq"):
            return handler

        async def enq(request: Any, context: Any) -> Any:
            response = await handler.unary_unary(request, context)
            if self.left:
                self.left -= 1
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the reply is lost")
            return response

        return grpc.unary_unary_rpc_method_handler(enq, handler.request_deserializer, handler.response_serializer)


def test_a_lost_reply_never_enqueues_twice() -> None:
    lost = LostReplies(3)
    with SQServer(port=0, interceptors=[lost]) as server, SQClient(port=server.port, timeout=PATIENCE) as client:
        assert client.enq("A") == 1
        assert client.enq_many(["B", "C"]) == 2
        assert lost.left == 0
        assert client.peek() == b"A,B,C"


def test_a_full_queue_refuses_the_new_message_and_drops_none() -> None:
    with SQServer(port=0, max_messages=2) as server, SQClient(port=server.port) as client:
        client.enq_many(["A", "B"])
        with pytest.raises(QueueFull) as refused:
            client.enq("C")
        assert refused.value.reason == "QUEUE_FULL"
        assert "max_messages is 2" in str(refused.value)
        assert client.peek() == b"A,B"


# -- clients ----------------------------------------------------------------------------------------------------------

FORK = """
import os, sys
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]))
client.enq("before")
assert client.deq() == b"before"
child = os.fork()
if child == 0:
    client.enq("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
client.enq("parent")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.alone
def test_a_client_works_on_both_sides_of_a_fork(server: SQServer, client: SQClient) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(server.port)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    expect(b"child,parent", client.peek, within=1.0)
    assert client.counts().acked == 1, "the child must leave alone what the parent holds"


def test_a_client_may_be_used_by_many_threads(client: SQClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = list(threads.map(lambda number: client.enq(str(number)), range(400)))
        assert sorted(ids) == list(range(1, 401))
        bodies = threads.map(lambda _: client.deq(timeout=PATIENCE), range(400))
        assert sorted(bodies, key=int) == [str(number).encode() for number in range(400)]


# -- the server ends --------------------------------------------------------------------------------------------------


def test_a_blocked_deq_outlives_a_restart_of_the_server() -> None:
    with SQServer(port=0) as server, SQClient(port=server.port) as client, ThreadPoolExecutor(1) as thread:
        waiting = thread.submit(client.deq)
        expect(1, lambda: client.counts().consumers, within=PATIENCE)
        server.stop()
        with SQServer(port=server.port):
            client.enq("A")
            message = waiting.result(PATIENCE)
            assert message == b"A"
            assert message.ack() is True


def test_enq_waits_for_a_server_that_is_away() -> None:
    with SQServer(port=free_port()) as server:
        port = server.port
    with SQClient(port=port, timeout=PATIENCE) as client, ThreadPoolExecutor(1) as thread:
        enqueueing = thread.submit(client.enq, "A")
        assert wait([enqueueing], 0.5).not_done
        with SQServer(port=port):
            assert enqueueing.result(PATIENCE) == 1


def test_consumers_may_settle_while_the_server_stops() -> None:
    with SQServer(port=0) as server, SQClient(port=server.port) as client, ThreadPoolExecutor(1) as thread:
        client.enq_many(["A", "B"])
        message = client.deq(timeout=PATIENCE)
        assert message == b"A"
        begin = time.monotonic()
        stopping = thread.submit(server.stop, grace=PATIENCE)
        assert wait([stopping], 0.3).not_done
        assert message.ack() is True
        stopping.result(PATIENCE)
        assert time.monotonic() - begin < PATIENCE / 2, "waited although nothing was held any more"


# -- the server dies --------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_everything_confirmed_survives_sigkill_of_the_server(tmp_path: Path) -> None:
    confirmed: list[str] = []

    def produce(client: SQClient) -> None:
        for number in range(100_000):
            client.enq(str(number))
            confirmed.append(str(number))

    with (
        ServerProcess(tmp_path / "queue.db") as server,
        SQClient(port=server.port, timeout=10.0) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        producing = thread.submit(produce, client)
        expect(True, lambda: len(confirmed) >= 200, within=PATIENCE)
        server.kill()
        with pytest.raises(Unavailable):
            producing.result(PATIENCE)

    with ServerProcess(tmp_path / "queue.db") as server, SQClient(port=server.port) as client:
        kept = client.peek().decode().split(",")
        assert kept[: len(confirmed)] == confirmed
        assert len(kept) <= len(confirmed) + 1, "the one under way may be there too, and nothing else"


@pytest.mark.slow
def test_after_sigkill_of_the_server_leased_messages_are_back_and_acked_ones_are_not(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "queue.db") as server, SQClient(port=server.port, timeout=PATIENCE) as client:
        client.enq_many(["A", "B", "C", "D"])
        done = client.deq(timeout=PATIENCE)
        assert done == b"A"
        assert done.ack() is True
        assert client.deq(timeout=PATIENCE) == b"B"
        server.kill()

    with ServerProcess(tmp_path / "queue.db") as server, SQClient(port=server.port) as client:
        assert client.peek() == b"B,C,D"


def test_a_request_id_is_remembered_across_sigkill_of_the_server(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "queue.db") as server, SQClient(port=server.port) as client:
        assert client.enq("A", request_id="once") == 1
        server.kill()

    with ServerProcess(tmp_path / "queue.db") as server, SQClient(port=server.port) as client:
        assert client.enq("A", request_id="once") == 1
        assert client.peek() == b"A"


def test_a_data_file_serves_one_server_at_a_time(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "queue.db"), pytest.raises(StoreInUse):
        SQServer(port=0, data=tmp_path / "queue.db").start()


def test_the_server_says_at_start_where_messages_live(tmp_path: Path) -> None:
    with ServerProcess(tmp_path / "queue.db") as server:
        assert f", messages in {tmp_path / 'queue.db'};" in server.said
    with ServerProcess(Path(":memory:")) as server:
        assert ", messages in memory (lost when the process ends);" in server.said
