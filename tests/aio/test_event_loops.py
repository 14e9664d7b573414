"""One client, one event loop: what happens at its end, beside another, and among its tasks."""

from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.waiting import PATIENCE, python, run_python, soon, until

from stiqueue import AsyncMessage, AsyncSQClient, Message, SQClient, SQServer


def test_the_names_and_arguments_are_those_of_the_blocking_client() -> None:
    def surface(client: type) -> dict[str, Any]:
        names = {name for name in dir(client) if not name.startswith("_") and callable(getattr(client, name))}
        return {name: [*inspect.signature(getattr(client, name)).parameters.values()][1:] for name in names}

    def plain(parameters: dict[str, Any]) -> dict[str, Any]:
        return {name: [(each.name, each.kind, each.default) for each in of] for name, of in parameters.items()}

    assert plain(surface(AsyncSQClient)) == plain(surface(SQClient))
    assert inspect.signature(AsyncSQClient) == inspect.signature(SQClient)
    for name in surface(SQClient):
        assert inspect.iscoroutinefunction(getattr(AsyncSQClient, name)) or name in {"consume", "backoff_of"}, name
    for name in ("ack", "requeue", "dead_letter", "extend", "ack_and_enq"):
        assert inspect.iscoroutinefunction(getattr(AsyncMessage, name))


def test_a_message_is_bytes_and_pickles_as_its_body(server: SQServer) -> None:
    async def main() -> None:
        async with AsyncSQClient(port=server.port) as client:
            await client.enq("a", headers={"k": "v"})
            message = await client.deq()
            assert isinstance(message, AsyncMessage)
            assert isinstance(message, Message)
            assert (message, message.headers) == (b"a", {"k": "v"})
            assert type(pickle.loads(pickle.dumps(message))) is bytes

    asyncio.run(main())


@pytest.mark.scenario("threads", client="AsyncSQClient")
def test_another_event_loop_is_refused_while_the_first_is_there(server: SQServer) -> None:
    client = AsyncSQClient(port=server.port)
    refused: list[BaseException] = []

    async def elsewhere() -> None:
        for call in client.enq("b"), client.deq(timeout=0), client.close(), anext(client.consume()):
            try:
                await call
            except RuntimeError as error:
                refused.append(error)

    async def main() -> None:
        await client.enq("a")
        thread = threading.Thread(target=asyncio.run, args=(elsewhere(),))
        thread.start()
        await asyncio.get_running_loop().run_in_executor(None, thread.join)
        assert await client.deq() == b"a"
        await client.close()

    asyncio.run(main())
    assert len(refused) == 4
    assert {str(error) for error in refused} == {
        "this AsyncSQClient is used by another event loop: make one for each loop, or close it there first"
    }


def test_the_next_event_loop_may_use_the_client_when_the_last_has_ended(server: SQServer, client: SQClient) -> None:
    ours = AsyncSQClient(port=server.port)

    async def use() -> None:
        await ours.enq("a")
        assert await ours.deq() == b"a"

    for number in range(1, 4):
        asyncio.run(use())
        until(lambda: client.counts().consumers, 0)
        assert client.counts().acked == number


def test_a_loop_that_ended_without_a_word_gives_back(server: SQServer, client: SQClient) -> None:
    ours = AsyncSQClient(port=server.port)
    client.enq("a")

    async def use() -> None:
        assert await ours.deq() == b"a"

    loop = asyncio.new_event_loop()
    loop.run_until_complete(use())
    loop.close()
    asyncio.run(use())
    until(lambda: client.counts().consumers, 0)
    assert client.counts().acked == 1
    assert client.counts().requeued == 1


ENDINGS = {
    "the end of the program": ("", 0, b"b"),
    "sys.exit": ("sys.exit()", 0, b"b"),
    "sys.exit(1), which cannot be told from it": ("sys.exit(1)", 1, b"b"),
    "a closed client": ("await client.close()", 0, b"b"),
    "an exception": ("raise RuntimeError('a bug')", 1, b"a,b"),
    "Ctrl-C": ("signal.raise_signal(signal.SIGINT); await asyncio.sleep(9)", -2, b"a,b"),
    "a task that failed": ("await asyncio.gather(fails(), return_exceptions=True)", 0, b"b"),
    "another task that waits": ("asyncio.ensure_future(client.deq(queue='empty')); await asyncio.sleep(0.1)", 0, b"b"),
    "os._exit(0)": ("os._exit(0)", 0, b"a,b"),
    "SIGTERM": ("os.kill(os.getpid(), signal.SIGTERM)", -15, b"a,b"),
    "SIGKILL": ("os.kill(os.getpid(), signal.SIGKILL)", -9, b"a,b"),
}
HOLD = """
import asyncio, os, signal, sys
from stiqueue import AsyncSQClient
client = AsyncSQClient(port=int(sys.argv[1]))

async def fails():
    raise RuntimeError("a bug")

async def main():
    assert await client.deq() == b"a"
    {}

asyncio.run(main())
"""


@pytest.mark.scenario("interpreter ends", client="AsyncSQClient")
@pytest.mark.parametrize(("ending", "code", "left"), ENDINGS.values(), ids=ENDINGS.keys())
def test_the_end_of_asyncio_run_settles_as_the_end_of_an_interpreter_does(
    server: SQServer, client: SQClient, ending: str, code: int, left: bytes
) -> None:
    client.enq_many(list("ab"))
    done = run_python(HOLD.format(ending), server.port)
    assert done.returncode == code, done.stderr
    until(lambda: client.counts().consumers, 0)
    until(client.peek, left)
    if code == 0:
        assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.slow
@pytest.mark.scenario("interpreter ends", client="AsyncSQClient")
def test_a_program_that_ends_while_the_server_is_gone_does_not_hang(server: SQServer, client: SQClient) -> None:
    client.enq("a")
    with python(HOLD.format("print('holding', flush=True); sys.stdin.readline()"), server.port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        server.stop()
        _, errors = process.communicate("go on\n", timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.scenario("threads", client="AsyncSQClient")
def test_a_loop_over_messages_that_are_here_lets_other_tasks_run(server: SQServer, client: SQClient) -> None:
    client.enq_many(map(str, range(200)))

    async def main() -> int:
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        task = asyncio.ensure_future(other())
        async with AsyncSQClient(port=server.port) as ours:
            before = 0
            async for number in ours.consume(prefetch=200, timeout=0):
                if int(number) == 0:
                    before = turns
                time.sleep(0.005)  # noqa: ASYNC251 - a body that never awaits
                if int(number) == 190:
                    return turns - before
        task.cancel()
        return 0

    assert asyncio.run(main()) >= 20


@pytest.mark.scenario("threads", client="AsyncSQClient")
def test_many_tasks_share_connections_and_requests(server: SQServer, client: SQClient) -> None:
    """More streams than a connection may have, and far fewer requests than calls."""

    async def main() -> None:
        async with AsyncSQClient(port=server.port, timeout=PATIENCE) as ours:
            waiting = [asyncio.ensure_future(ours.deq(queue="waiting")) for _ in range(250)]

            async def consumers() -> int:
                return (await ours.counts(queue="waiting")).consumers

            await soon(consumers, 250)
            ids = await asyncio.gather(*(ours.enq(str(number)) for number in range(2_000)))
            assert sorted(ids) == list(range(1, 2_001))
            await ours.enq_many(map(str, range(250)), queue="waiting")
            assert sorted(int(message or b"-1") for message in await asyncio.gather(*waiting)) == list(range(250))

    asyncio.run(main())
    assert client.cnt() == 2_000
    assert client.counts(queue="waiting").acked == 250


FORK = """
import asyncio, os, signal, sys, warnings
from stiqueue import AsyncSQClient, SQClient
warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, which is the point here
port = int(sys.argv[1])
client = AsyncSQClient(port=port)

async def use(client):
    await client.enq("a")
    assert await client.deq() == b"a"
    await client.ack()

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            work()
        except BaseException as error:
            print(type(error).__name__, str(error).partition(":")[0], flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
REFUSAL = "does not work in a process forked"


def forks(test: Callable[..., None]) -> Callable[..., None]:
    """Mark a test that forks."""
    marked = pytest.mark.scenario("fork", client="AsyncSQClient")(test)
    return pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")(marked)  # type: ignore[no-any-return]


OLD_GRPC = tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 72)
forks_later = pytest.mark.skipif(OLD_GRPC, reason="gRPC 1.71 may hang in a fork after grpc.aio was used")


@forks
def test_a_fork_before_the_first_call_leaves_both_sides_a_client(server: SQServer, client: SQClient) -> None:
    program = FORK + "assert child(lambda: asyncio.run(use(client))) == 0; asyncio.run(use(client))"
    done = run_python(program, server.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert client.counts().acked == 2


@forks
@forks_later
def test_a_fork_after_the_first_call_is_refused_instead_of_hanging(server: SQServer) -> None:
    program = FORK + "asyncio.run(use(client)); assert child(lambda: asyncio.run(use(client))) == 1"
    done = run_python(program, server.port)
    assert (done.returncode, done.stdout) == (0, f"NotSupported grpc.aio {REFUSAL} after its parent used it\n"), (
        done.stderr
    )


@forks
@forks_later
def test_a_child_may_use_a_blocking_client_when_the_parents_client_was_closed(
    server: SQServer, client: SQClient
) -> None:
    program = FORK + "asyncio.run(use(client)); assert child(lambda: SQClient(port=port).enq('of the child')) == 0"
    done = run_python(program, server.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert client.peek() == b"of the child"


@forks
@forks_later
def test_a_fork_while_the_client_is_open_is_refused_instead_of_crashing(server: SQServer) -> None:
    program = (
        FORK
        + """
async def main():
    await use(client)
    assert child(lambda: SQClient(port=port).enq("of the child")) == 1
    await use(client)

asyncio.run(main())
"""
    )
    done = run_python(program, server.port)
    assert (done.returncode, done.stdout) == (0, f"NotSupported gRPC {REFUSAL} while an AsyncSQClient was open\n"), (
        done.stderr
    )


SPAWN = """
import asyncio, multiprocessing, os, sys
from stiqueue import AsyncSQClient

async def take(fails):
    client = AsyncSQClient(port=int(sys.argv[1]))
    assert await client.deq() == b"a"
    if fails:
        raise RuntimeError("a bug")

def child(fails):
    if fails:
        sys.stderr = open(os.devnull, "w")
    asyncio.run(take(fails))

if __name__ == "__main__":
    asyncio.run(take(False))
    for fails in False, True:
        process = multiprocessing.get_context(sys.argv[2]).Process(target=child, args=(fails,))
        process.start()
        process.join(30)
        assert process.exitcode == int(fails), process.exitcode
"""


@pytest.mark.scenario("spawn", client="AsyncSQClient")
@pytest.mark.parametrize("how", ["spawn", "forkserver"])
def test_a_spawned_child_has_a_client_of_its_own(server: SQServer, client: SQClient, tmp_path: Path, how: str) -> None:
    """Also when its parent had one: it takes and settles, and gives back when it fails."""
    client.enq_many(list("aaa"))
    program = tmp_path / "program.py"
    program.write_text(SPAWN)
    done = run_python(program, server.port, how)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    until(client.peek, b"a")
    assert client.counts().acked == 2
