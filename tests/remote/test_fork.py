"""`SQClient` on both sides of a `fork`. Everything happens in new interpreters: nobody forks the tests themselves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.waiting import run_python, until

from stiqueue import SQClient, SQServer

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork"),
    pytest.mark.scenario("fork", client="SQClient"),
]

BEGIN = """
import os, signal, sys, threading, time, warnings
from stiqueue import SQClient
warnings.simplefilter("ignore", DeprecationWarning)  # of fork beside threads, which is the point here
client = SQClient(port=int(sys.argv[1]))

def child(work):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        try:
            work()
        except BaseException as error:
            print("child:", repr(error), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def run(server: SQServer, program: str) -> None:
    """Run a program that forks; it must end well."""
    done = run_python(BEGIN + program, server.port)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_child_works_with_the_client_that_its_parent_used(server: SQServer, client: SQClient) -> None:
    run(
        server,
        """
client.enq("before")
def work():
    client.enq("of the child")
    assert client.deq().decode() == "before"
    assert client.ack()
    assert client.cnt() == 1
assert child(work) == 0
client.enq("of the parent")
assert client.deq().decode() == "of the child"
""",
    )
    until(client.peek, b"of the parent")
    assert client.counts().acked == 2


def test_what_the_parent_holds_is_not_settled_by_its_child(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"))
    run(
        server,
        """
message = client.deq()
assert message == b"a"
def work():
    assert client.deq() == b"b"
    client.close()
assert child(work) == 0
assert client.counts().leased == 1, client.counts()
assert message.ack() is True
""",
    )
    assert client.peek() == b"c"
    assert client.counts().acked == 2


def test_a_child_that_dies_gives_back_only_its_own(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"))
    run(
        server,
        """
assert client.deq() == b"a"
def work():
    assert client.deq() == b"b"
    os.kill(os.getpid(), signal.SIGKILL)
assert child(work) == -signal.SIGKILL
assert client.deq() == b"b"
""",
    )
    until(lambda: client.counts().acked, 2)
    assert client.peek() == b"c"


def test_a_child_can_settle_what_its_parent_took(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("ab"))
    run(
        server,
        """
message = client.deq()
def work():
    assert message.ack() is True
assert child(work) == 0
assert message.ack() is False
""",
    )
    until(client.peek, b"b")
    assert client.counts().acked == 1


def test_a_fork_while_another_thread_waits_harms_neither(server: SQServer, client: SQClient) -> None:
    run(
        server,
        """
found = []
thread = threading.Thread(target=lambda: found.append(client.deq()))
thread.start()
while client.counts().consumers < 1:
    time.sleep(0.01)
def work():
    client.enq("for the child", queue="q")
    assert client.deq(queue="q") == b"for the child"
    client.close()
for _ in range(5):
    assert child(work) == 0
client.enq("for the thread")
thread.join(20)
assert found == [b"for the thread"]
""",
    )
    until(lambda: client.counts().acked, 1)


def test_forks_while_other_threads_call_harm_neither(server: SQServer, client: SQClient) -> None:
    """Without a wait for calls under way, the first child hangs inside gRPC, or dies by a signal.

    The first fork may find a thread that makes the first channel.
    """
    run(
        server,
        """
rounds, stop = [0] * 4, threading.Event()
def produce(number):
    while not stop.is_set():
        client.enq("of the parent", queue="sink")
        rounds[number] += 1
producers = [threading.Thread(target=produce, args=(number,), daemon=True) for number in range(4)]
for thread in producers:
    thread.start()

def exchange(done):
    name = f"{os.getpid()}.{threading.get_native_id()}"
    for body in (b"1", b"2"):
        client.enq(body, queue=name)
        assert client.deq(queue=name) == body
    done.append(client.ack())
def one():
    exchange([])
def several():
    done = []
    threads = [threading.Thread(target=exchange, args=(done,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [True] * 4
for work in [one, several] * 10:
    before = sum(rounds)
    assert child(work) == 0
    while sum(rounds) == before:
        time.sleep(0.01)
stop.set()
for thread in producers:
    thread.join(20)
assert client.cnt(queue="sink") == sum(rounds)
""",
    )


def test_a_fork_waits_for_a_call_without_an_answer(server: SQServer, client: SQClient) -> None:
    run(
        server,
        """
import socket
from stiqueue import Unavailable
listener = socket.create_server(("127.0.0.1", 0))
silent = SQClient(port=listener.getsockname()[1], timeout=2)
failed = []
def call():
    try:
        silent.enq("never answered")
    except Unavailable as error:
        failed.append(error)
thread = threading.Thread(target=call)
client.enq("before")
thread.start()
listener.accept()
def work():
    client.enq("of the child")
assert child(work) == 0
thread.join(20)
assert failed
""",
    )
    assert client.peek() == b"before,of the child"


def test_the_first_channel_is_made_before_enq_soon_returns(server: SQServer, client: SQClient) -> None:
    """gRPC prepares for no fork that begins while another thread makes its first channel."""
    run(
        server,
        """
import grpc
makers = []
make = grpc.insecure_channel
def noting(*args, **options):
    makers.append(threading.current_thread())
    return make(*args, **options)
grpc.insecure_channel = noting
client.enq_soon("a")
assert makers == [threading.main_thread()]
assert child(lambda: client.enq("b")) == 0
client.flush()
""",
    )
    assert sorted(client.peek().split(b",")) == [b"a", b"b"]


def test_the_first_channel_waits_for_a_fork_in_progress(server: SQServer, client: SQClient) -> None:
    done = run_python(
        """
import os, sys, threading, warnings
warnings.simplefilter("ignore", DeprecationWarning)
def late():
    caller.start()
    caller.join(0.3)
    assert not makers
os.register_at_fork(before=late)  # so it runs last
import grpc
from stiqueue import SQClient
makers = []
make = grpc.insecure_channel
def noting(*args, **options):
    makers.append(threading.current_thread())
    return make(*args, **options)
grpc.insecure_channel = noting
client = SQClient(port=int(sys.argv[1]))
caller = threading.Thread(target=client.enq, args=["of the parent"])
pid = os.fork()
if pid == 0:
    client.enq("of the child")
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
caller.join()
assert makers == [caller]
client.close()
""",
        server.port,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(client.peek().split(b",")) == [b"of the child", b"of the parent"]


def test_grandchildren_work_too(server: SQServer, client: SQClient) -> None:
    run(
        server,
        """
client.enq("parent")
def work():
    client.enq("child")
    assert child(lambda: client.enq("grandchild")) == 0
assert child(work) == 0
""",
    )
    assert client.peek() == b"parent,child,grandchild"


CHILD = """
import multiprocessing, os, sys
from stiqueue import SQClient

client = SQClient(port=int(sys.argv[1]))

def works(shared):
    assert (client if shared else SQClient(port=int(sys.argv[1]))).deq() == b"a"

def fails(shared):
    works(shared)
    sys.stderr = open(os.devnull, "w")
    raise RuntimeError("a bug")

if __name__ == "__main__":
    how, what, shared = sys.argv[2:]
    if shared:
        client.cnt()
    process = multiprocessing.get_context(how).Process(target=globals()[what], args=(bool(shared),))
    process.start()
    process.join(30)
    assert process.exitcode == (0 if what == "works" else 1), process.exitcode
    if shared:
        client.cnt()
"""

starting = pytest.mark.parametrize(
    "how",
    [
        "fork",
        pytest.param("spawn", marks=pytest.mark.scenario("spawn", client="SQClient")),
        pytest.param("forkserver", marks=pytest.mark.scenario("spawn", client="SQClient")),
    ],
)
sharing = pytest.mark.parametrize("shared", ["", "shared"], ids=["a client of its own", "its parent's client"])


def run_child(server: SQServer, directory: Path, *arguments: str) -> None:
    """Run a program that starts a child by `multiprocessing`; both must end as expected."""
    program = directory / "program.py"
    program.write_text(CHILD)
    done = run_python(program, server.port, *arguments)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@starting
@sharing
def test_a_child_of_multiprocessing_that_ends_well_acks(
    server: SQServer, client: SQClient, tmp_path: Path, how: str, shared: str
) -> None:
    client.enq_many(list("ab"))
    run_child(server, tmp_path, how, "works", shared)
    until(lambda: client.counts().consumers, 0)
    assert client.peek() == b"b"
    assert client.counts().acked == 1


@starting
@sharing
def test_a_child_of_multiprocessing_that_fails_gives_back(
    server: SQServer, client: SQClient, tmp_path: Path, how: str, shared: str
) -> None:
    client.enq_many(list("ab"))
    run_child(server, tmp_path, how, "fails", shared)
    until(client.peek, b"a,b")
    assert client.counts().acked == 0
