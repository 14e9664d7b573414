"""The server's own life: two of them on one port (fault 25), and SIGTERM (fault 26)."""

from __future__ import annotations

import os
import signal
import socket
import time

import grpc
import pytest

from stiqueue.v1 import queue_pb2 as pb
from tests.support.ports import free_port

from .checker import Expectation
from .processes import NOT_SERVING, ServerProcess, wait_until
from .recorder import read_history
from .run import Run

SECOND = 1_000_000_000

PAIRS = [
    ("127.0.0.1", "127.0.0.1"),
    ("127.0.0.1", "0.0.0.0"),
    ("0.0.0.0", "127.0.0.1"),
    ("0.0.0.0", "0.0.0.0"),
    ("127.0.0.1", "localhost"),
    ("localhost", "127.0.0.1"),
    ("localhost", "localhost"),
    ("127.0.0.1", "::"),
    ("::", "127.0.0.1"),
    ("0.0.0.0", "::"),
    ("::", "0.0.0.0"),
    ("::", "::1"),
    ("::1", "::"),
]
"""Addresses of which the second is, in part, the first."""


def has_ipv6() -> bool:
    """Return whether this machine has the loopback address of IPv6."""
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
    return True


def assert_refused(server: ServerProcess) -> None:
    """Make sure that a server which has just been started ends at once, with one clear line."""
    assert server.wait(20) == 1, server.log
    lines = server.log.strip().splitlines()
    assert len(lines) == 1, server.log
    assert f":{server.port}" in lines[0]
    assert "in use" in lines[0].lower()


def assert_serves(run: Run, server: ServerProcess) -> None:
    """Make sure that every new connection reaches `server`: each message comes back from it."""
    for n in range(20):
        stub = run.stub(server.target)
        stub.Enq(pb.EnqRequest(bodies=[b"%d" % n]), timeout=5, wait_for_ready=True)
        response = next(stub.Deq(pb.DeqRequest(max_messages=1, no_ack=True), timeout=5))
        assert response.messages[0].body == b"%d" % n
        run.hang_up(server.target)


@pytest.mark.parametrize(("first_host", "second_host"), PAIRS)
def test_25_two_servers_on_one_port(run: Run, first_host: str, second_host: str) -> None:
    """The second is refused with one clear line; the first does not notice."""
    if ":" in first_host + second_host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    first = run.server(host=first_host)
    second = run.server(host=second_host, start=False)
    second.port = first.port
    second.start(ready=False)
    assert_refused(second)
    assert_serves(run, first)


def test_25_two_servers_started_at_the_same_time(run: Run) -> None:
    """One of them serves, the other one is refused."""
    servers = [run.server(start=False) for _ in range(2)]
    servers[1].port = servers[0].port
    for server in servers:
        server.start(ready=False)
    wait_until(lambda: any(server.has_ended for server in servers), 60, "one was refused")
    refused = next(server for server in servers if server.has_ended)
    assert_refused(refused)
    survivor = next(server for server in servers if server is not refused)
    survivor.wait_ready()
    assert_serves(run, survivor)


@pytest.mark.parametrize("shares", [False, True], ids=["alone", "shares its port"])
def test_25_another_program_on_the_port(run: Run, shares: bool) -> None:
    """The server is refused, even where the other program would share its port."""
    with socket.socket() as other:
        if shares:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", free_port()))
        other.listen()
        server = run.server(start=False)
        server.port = other.getsockname()[1]
        server.start(ready=False)
        assert_refused(server)


def test_25_the_port_is_not_shared(run: Run) -> None:
    """The effect of the option: no other socket can listen beside the server's, not even one that would share.

    gRPC ignores a misspelt option in silence, and the default is to share.
    """
    server = run.server()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        with pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", server.port))


def test_25_the_port_is_free_again_after_a_kill(run: Run) -> None:
    """A restart at once, on the same port, while connections of the killed server linger."""
    server = run.server()
    assert_serves(run, server)
    waiting = run.client("consume", "c", "--once")
    waiting.wait_for("ready")
    run.inject.kill(server)
    begin = time.monotonic()
    run.inject.restart(server)
    assert time.monotonic() - begin < 10
    assert_serves(run, server)


def ended(server: ServerProcess, signalled: int, seconds: float) -> float:
    """Wait until `server` has ended with 0; return how long after the signal, in seconds."""
    assert server.wait(seconds) == 0, server.log
    took = (time.monotonic_ns() - signalled) / SECOND
    print(f"ended {took:.2f} s after the signal")
    assert "Traceback" not in server.log
    return took


def usual_end(run: Run) -> float:
    """Return how long a server that has nothing to do takes to end on this machine, now, in seconds."""
    idle = run.server()
    signalled = time.monotonic_ns()
    os.kill(idle.pid, signal.SIGTERM)
    return ended(idle, signalled, 10)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_26_sigterm_without_leases(run: Run, number: signal.Signals) -> None:
    """20 consumers wait: the server ends within 1 s, and each stream says that trying again is right."""
    server = run.server()
    crowd = run.client("crowd", "crowd", "--clients", 20)
    crowd.wait_for("ready")
    usual = usual_end(run)
    signalled = run.inject.terminate(server, number)
    assert ended(server, signalled, 20) <= 1.0 + usual
    for _ in range(20):
        assert crowd.wait_for("failed").startswith("failed Deq UNAVAILABLE")


def test_26_sigterm_under_load(run: Run) -> None:
    """8 producers and 8 consumers are at work, and 2 consumers hold messages, when SIGTERM comes.

    No message is delivered any more; acknowledgements of those under way are honoured; then the server ends at once,
    long before its grace. What was acknowledged was not delivered again. (In memory the rest ends with the server.)
    """
    server = run.server("--grace", "10")
    holders = [run.client("consume", f"h{n}", "--prefetch", 5, "--then", "hold", "--once") for n in range(2)]
    producers = [run.client("produce", f"p{n}", "--batch", 100, "--rate", 20, "--give-up", 1) for n in range(8)]
    for holder in holders:
        holder.wait_for("holding 5", 30)
    consumers = [run.client("consume", f"c{n}", "--prefetch", 20, "--once") for n in range(8)]
    for consumer in consumers:
        consumer.wait_for("ready")
    before = run.counts().acked
    wait_until(lambda: run.counts().acked >= before + 2_000, 90, "load")

    signalled = run.inject.terminate(server)
    for consumer in consumers:
        assert consumer.wait_for("ended") == "ended UNAVAILABLE"
    assert run.counts().leased == 10
    run.stop_clients([*producers, *consumers])  # whose tries would take the processor from the end of the server
    for holder in holders:
        holder.order("ack")
        assert holder.wait_for("acked") == "acked 5 stale 0"
        assert holder.wait_for("ended") == "ended UNAVAILABLE"
    settled = time.monotonic_ns()
    took = ended(server, settled, 5)
    assert time.monotonic_ns() - signalled <= 11 * SECOND
    assert took <= 1.0 + usual_end(run)
    run.stop_clients()

    events = read_history(run.directory)
    late = [event for event in events if event.op == "deq" and event.t > signalled + SECOND // 2]
    assert late == []
    stale = [event for event in events if event.op == "ack" and event.outcome in ("stale", "unknown")]
    assert stale == []
    result = run.assert_no_errors(Expectation(confirmed=2_000))
    assert dict(result.duplicates) == {}


def test_26_sigterm_while_a_consumer_holds_on(run: Run) -> None:
    """A consumer does not settle: the server waits its grace and not longer; new work is refused meanwhile."""
    server = run.server("--grace", "2")
    run.fill(10)
    holder = run.client("consume", "h", "--prefetch", 10, "--then", "hold", "--once")
    holder.wait_for("holding 10")
    signalled = run.inject.terminate(server)
    wait_until(lambda: "stopping" in server.log, 10, "the server begins to stop")
    with pytest.raises(grpc.RpcError) as refused:
        run.stub().Enq(pb.EnqRequest(bodies=[b"late"]), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert not server.has_ended
    took = ended(server, signalled, 10)
    assert 2.0 <= took <= 3.0 + usual_end(run)
    assert holder.wait_for("ended") == "ended UNAVAILABLE"
    run.assert_no_errors(Expectation(confirmed=10))


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_26_second_signal_ends_at_once(run: Run, second: signal.Signals) -> None:
    """Whoever cannot wait for the grace signals again."""
    server = run.server("--grace", "30")
    run.fill(10)
    holder = run.client("consume", "h", "--prefetch", 10, "--then", "hold", "--once")
    holder.wait_for("holding 10")
    run.inject.terminate(server)
    server.wait_ready(5, NOT_SERVING)
    signalled = time.monotonic_ns()
    os.kill(server.pid, second)
    assert ended(server, signalled, 10) <= 1.0 + usual_end(run)
    assert holder.wait_for("ended") == "ended UNAVAILABLE"
    run.assert_no_errors(Expectation(confirmed=10))
