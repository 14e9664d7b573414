"""What becomes of the message that a process holds when its interpreter ends, in every way it can."""

from __future__ import annotations

import gc
import signal
import sys

import pytest
from support.waiting import python, run_python, until

from stiqueue import SQClient, SQServer

pytestmark = pytest.mark.scenario("interpreter ends", client="SQClient")

HOLD = """
import os, signal, sys, threading
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]))
assert client.deq() == b"a"
"""

ACKED = {
    "the end of the program": "",
    "sys.exit": "sys.exit()",
    "sys.exit(1), which cannot be told from it": "sys.exit(1)",
    "a thread that failed": """
threading.excepthook = lambda _: None
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
""",
    "an exception that was caught": """
try:
    1 / 0
except ZeroDivisionError:
    pass
""",
    "another thread that waits for a message": """
threading.Thread(target=lambda: client.deq(queue="empty"), daemon=True).start()
""",
    "a client that nobody knows any more": "del client",
    "a client closed by hand": "client.close()",
}

GIVEN_BACK = {
    "an exception": "raise RuntimeError('a bug')",
    "an exception in a with block": "with client: raise RuntimeError('a bug')",
    "Ctrl-C": "signal.raise_signal(signal.SIGINT)",
    "os._exit(0)": "os._exit(0)",
    "SIGTERM": "os.kill(os.getpid(), signal.SIGTERM)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "os.abort": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (0, 0)); os.abort()",
}


@pytest.mark.parametrize("ending", ACKED.values(), ids=ACKED.keys())
def test_a_clean_end_acks(server: SQServer, client: SQClient, ending: str) -> None:
    client.enq_many(list("ab"))
    done = run_python(HOLD + ending, server.port)
    assert (done.stdout, done.stderr) == ("", "")
    until(lambda: client.counts().consumers, 0)
    assert client.peek() == b"b"
    assert client.counts().acked == 1


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
@pytest.mark.parametrize("ending", GIVEN_BACK.values(), ids=GIVEN_BACK.keys())
def test_any_other_end_gives_back(server: SQServer, client: SQClient, ending: str) -> None:
    client.enq_many(list("ab"))
    run_python(HOLD + ending, server.port)
    until(client.peek, b"a,b")
    assert client.counts().acked == 0


def test_a_process_ends_although_the_server_is_gone(server: SQServer, client: SQClient) -> None:
    client.enq("a")
    with python(HOLD + "print('holding', flush=True); sys.stdin.readline()", server.port) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "holding\n"
        server.stop()
        _, errors = process.communicate("go on\n", timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_process_ends_while_a_loop_is_under_way(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"))
    done = run_python(
        """
import sys
from stiqueue import SQClient
loop = SQClient(port=int(sys.argv[1])).consume(prefetch=2)
next(loop), next(loop)
""",
        server.port,
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    until(lambda: client.counts().consumers, 0)
    assert client.peek().endswith(b"b,c"), "the ack of `a` may have been under way"


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_ctrl_c_ends_a_deq_that_waits(server: SQServer, client: SQClient) -> None:
    program = """
import sys
from stiqueue import SQClient
try:
    SQClient(port=int(sys.argv[1])).deq()
except KeyboardInterrupt:
    print("interrupted")
"""
    with python(program, server.port) as process:
        until(lambda: client.counts().consumers, 1)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=20)
    assert (output, errors, process.returncode) == ("interrupted\n", "", 0)


def test_no_call_outlives_its_client(server: SQServer, client: SQClient) -> None:
    """The deletion of a call takes a lock that its thread, killed with the interpreter, may have taken with it."""
    client.enq_many(list("abc"))
    gc.collect()
    gc.disable()
    try:
        before = existing_calls()
        with SQClient(port=server.port) as other:
            message, loop = other.deq(), other.consume()
            another = next(loop)
            assert existing_calls() > before
        until(existing_calls, before)
        assert (message, another) == (b"a", b"b")
    finally:
        gc.enable()


def existing_calls() -> int:
    return sum(type(each).__name__ == "_MultiThreadedRendezvous" for each in gc.get_objects())
