"""`SQClient` in a program whose signal handlers raise, or use the client themselves."""

from __future__ import annotations

import signal

import pytest
from support.waiting import run_python

from stiqueue import SQClient, SQServer

pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer"),
]

BEGIN = """
import random, signal, sys, time
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]), timeout=20)
client.cnt()  # connects: not for handlers
"""


def run(server: SQServer, program: str) -> list[str]:
    """Run a program that gets signals; it must end well. Return the lines that it printed."""
    done = run_python(BEGIN + program, server.port)
    assert done.returncode == 0, done.stderr  # Python itself complains of coroutines that an exception cut off
    return done.stdout.split()


def test_an_exception_of_a_handler_loses_nothing_and_locks_nobody(server: SQServer, client: SQClient) -> None:
    confirmed = run(
        server,
        """
class Interrupt(BaseException):
    pass
def interrupt(*_):
    raise Interrupt
signal.signal(signal.SIGALRM, interrupt)
confirmed, interrupted, number = [], 0, 0
while interrupted < 300:
    number += 1
    body = str(number)
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.002))
        client.enq(body)
        signal.setitimer(signal.ITIMER_REAL, 0)
        confirmed.append(body)
    except Interrupt:
        interrupted += 1
client.enq("last")
print(*confirmed, "last")
client.close()
""",
    )
    bodies = [message.decode() for message in client.peek_messages()]
    assert len(bodies) == len(set(bodies))
    assert set(confirmed) <= set(bodies)


def test_a_handler_may_call_the_client(server: SQServer, client: SQClient) -> None:
    confirmed = run(
        server,
        """
calls = []
def call(*_):
    calls.append(client.enq("of the handler", queue="other"))
signal.signal(signal.SIGALRM, call)
confirmed = []
while len(calls) < 200:
    signal.setitimer(signal.ITIMER_REAL, random.uniform(0.00005, 0.002))
    confirmed.append(client.enq("a"))
signal.setitimer(signal.ITIMER_REAL, 0)
print(len(confirmed), len(calls))
client.close()
""",
    )
    assert [client.cnt(), client.cnt(queue="other")] == [int(each) for each in confirmed]
