"""Answers that come too late, on a client that many threads or tasks share: fault 60, and what belongs to it."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from support.bridge import BridgedClient, EventLoop
from support.waiting import PATIENCE, Call, until

from stiqueue import SQClient, SQServer, StiQueueError, Unavailable

from .proxy import Direction, Mode, Proxy

TIMEOUT = 0.5
CALLS = 3
"""How many each flow makes: those that begin later find others under way."""
HELD_TIMES = 2.5
"""For how many timeouts the proxy holds answers."""
SLACK_SECONDS = 0.5 + 4.5
"""How much longer than its timeout a call may take, and what a busy machine may add to that."""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")


@pytest.fixture
def proxy(server: SQServer) -> Iterator[Proxy]:
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        yield proxy


@pytest.fixture
def ours(kind: str, proxy: Proxy) -> Iterator[Any]:
    """A client of either kind, through the proxy."""
    port = int(proxy.target.rpartition(":")[2])
    if kind == "SQClient":
        with SQClient(port=port, timeout=TIMEOUT, auto_ack=False) as client:
            yield client
        return
    loop = EventLoop()
    bridged = BridgedClient(loop, port=port, timeout=TIMEOUT, auto_ack=False)
    try:
        yield bridged
    finally:
        bridged.close()
        loop.close()


class Flow:
    """What one flow does again and again, and what it must have come to."""

    def __init__(self, operation: str, number: int, client: Any) -> None:
        self._operation, self._number, self._client = operation, number, client
        self._messages: list[Any] = []
        self.done: list[tuple[list[str], Any, float]] = []
        """Of each call: the bodies that it enqueued, what it returned or raised, how long it took."""

    def prepare(self) -> None:
        """Take what is to be settled, while answers still pass."""
        if self._operation.endswith("ack"):
            give_up = time.monotonic() + PATIENCE
            while len(self._messages) < CALLS:
                try:
                    self._messages.append(self._client.deq(timeout=PATIENCE, queue="held"))
                except Unavailable:  # a busy machine takes longer than the client's timeout
                    if time.monotonic() > give_up:
                        raise

    def run(self) -> None:
        for turn in range(CALLS):
            name = f"{self._number}-{turn}"
            bodies = {"ack": [], "enq_many": [f"{name}-{each}" for each in range(10)]}.get(self._operation, [name])
            begin = time.monotonic()
            outcome: Any
            try:
                outcome = self._call(bodies, turn)
            except StiQueueError as error:
                outcome = error
            self.done.append((bodies, outcome, time.monotonic() - begin))

    def _call(self, bodies: list[str], turn: int) -> Any:
        if self._operation == "enq":
            return self._client.enq(bodies[0], queue="new")
        if self._operation == "enq_many":
            return self._client.enq_many(bodies, queue="new")
        if self._operation == "enq_and_ack":
            return self._messages[turn].ack_and_enq(bodies[0], queue="new")
        return self._messages[turn].ack()


@pytest.mark.scenario("connection is reset, or an answer lost")
@pytest.mark.parametrize("kind", ["SQClient", "AsyncSQClient"])
@pytest.mark.parametrize("operation", ["enq", "enq_many", "enq_and_ack", "ack"])
@pytest.mark.parametrize("flows", [1, 4, pytest.param(7, marks=pytest.mark.slow), 64])
def test_60_answers_are_held_for_longer_than_the_timeout(
    flows: int, operation: str, proxy: Proxy, ours: Any, client: SQClient
) -> None:
    """No message twice, none lost that was confirmed; each call its own answer or error, within its own timeout."""
    client.enq_many([f"held {number}" for number in range(flows * CALLS)], queue="held")
    each_flow = [Flow(operation, number, ours) for number in range(flows)]
    ready, never = threading.Barrier(flows + 1), threading.Event()

    def flow(number: int) -> None:
        each_flow[number].prepare()
        ready.wait(PATIENCE)
        never.wait(TIMEOUT * number / flows)  # so that calls are under way whenever others begin
        each_flow[number].run()

    ours.cnt()
    calls = [Call(flow, number) for number in range(flows)]
    until(lambda: ready.n_waiting, flows)
    proxy.set(Mode.STALL, Direction.DOWN)
    ready.wait(PATIENCE)
    never.wait(HELD_TIMES * TIMEOUT)
    proxy.set(Mode.PASS)
    for call in calls:
        call.result()
    assert ours.enq("last", queue="other", timeout=PATIENCE) > 0  # and the server has answered all before it

    done = [each for work in each_flow for each in work.done]
    longest = max(seconds for _, _, seconds in done)
    errors = [outcome for _, outcome, _ in done if isinstance(outcome, StiQueueError)]
    found = client.peek_messages(queue="new")
    print(f"{len(errors)} of {len(done)} without an answer, {len(found)} enqueued, the longest {longest:.2f} s")
    assert errors
    assert {type(error) for error in errors} == {Unavailable}
    assert len({id(error) for error in errors}) == len(errors), "an error of its own for each"
    assert longest < TIMEOUT + SLACK_SECONDS
    bodies = Counter(bytes(message).decode() for message in found)
    assert set(bodies.values()) <= {1}, f"enqueued twice: {bodies.most_common(3)}"
    by_id = {message.id: bytes(message).decode() for message in found}
    unsettled = 0
    for expected, outcome, _ in done:
        if isinstance(outcome, StiQueueError):
            unsettled += 1
        elif operation == "ack":
            assert outcome in (True, False)  # False: an earlier try had settled it, and its answer was lost
        else:
            assert set(expected) <= set(bodies), "confirmed and lost"
            assert operation == "enq_many" or by_id[outcome] == expected[0], "the answer of another"
    if operation.endswith("ack"):
        assert client.counts(queue="held").leased <= unsettled
