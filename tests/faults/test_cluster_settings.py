"""Settings of queues on a cluster: the same for all gateways, in force at once, kept by the cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.nats_servers import NatsCluster, NatsServer
from support.waiting import PATIENCE, until

from stiqueue import LimitReached, NotSupported, QueueSettings, SQClient, State
from stiqueue.engines.jetstream import JetStreamEngine
from stiqueue.rules import policies
from stiqueue.sqserver import SQServer

Gateway = Callable[..., SQClient]
"""Starts a gateway with these options; returns a client of it."""


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.soak)], ids=["one server", "three servers"])
def nats(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer | NatsCluster]:
    """One NATS server, or three that are a cluster, for this test alone."""
    servers = NatsServer(tmp_path / "nats") if request.param == 1 else NatsCluster(*[tmp_path / "nats"] * 3)
    try:
        yield servers.start()
    finally:
        servers.end()


def replicas(nats: NatsServer | NatsCluster) -> int:
    """Return on how many servers each message is to be."""
    return 1 if isinstance(nats, NatsServer) else 3


@pytest.fixture
def gateway(nats: NatsServer | NatsCluster) -> Iterator[Gateway]:
    """Starts gateways to the NATS server, each on a socket of its own."""
    with ExitStack() as stack:

        def start(queue: str = "mail", **options: object) -> SQClient:
            server = stack.enter_context(SQServer(port=0, engine=nats.address, replicas=replicas(nats), **options))
            return stack.enter_context(SQClient(port=server.port, queue=queue, timeout=PATIENCE))

        yield start


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


def waiting(threads: ThreadPoolExecutor, client: SQClient) -> Future[bytes | None]:
    """Let a thread wait for a message; return once its gateway counts it as a consumer."""
    taken: Future[bytes | None] = threads.submit(client.deq, PATIENCE)
    until(lambda: client.counts().consumers >= 1)
    return taken


def test_a_pause_holds_the_waiting_consumers_of_every_gateway(gateway: Gateway, threads: ThreadPoolExecutor) -> None:
    one, two = gateway(), gateway()
    one.enq("first")
    held = two.deq(PATIENCE)
    assert held is not None
    taken = waiting(threads, gateway())
    one.pause()
    one.enq("second")
    assert two.settings().paused
    counts = two.counts()
    assert (counts.paused, counts.paused_ms, counts.ready, counts.leased) == (True, 0, 1, 1)
    assert held.ack()
    assert one.deq(0) is None
    assert not taken.done()
    assert two.resume()
    assert taken.result(PATIENCE) == b"second"
    assert not one.counts().paused


def test_a_pause_ends_by_itself(gateway: Gateway, threads: ThreadPoolExecutor) -> None:
    one, two = gateway(), gateway()
    taken = waiting(threads, two)
    one.pause(3.0)
    one.enq("a")
    counts = two.counts()
    assert counts.paused
    assert 0 < counts.paused_ms <= 3_000
    was_held = not taken.done()
    assert was_held or not two.counts().paused
    assert taken.result(PATIENCE) == b"a"
    until(lambda: one.settings().paused, False)
    assert one.all_settings().settings == []


def test_a_pattern_holds_for_queues_and_gateways_that_come_later(gateway: Gateway) -> None:
    one = gateway()
    one.enq("a", queue="mail.old")
    one.pause(queue="mail.*")
    later = gateway()
    later.enq("b", queue="mail.new")
    for queue in ("mail.old", "mail.new"):
        assert later.deq(0, queue=queue) is None
        assert one.counts(queue=queue).paused
    one.configure(queue="mail.new", paused=False)
    found = later.deq(PATIENCE, queue="mail.new")
    assert found == b"b"
    assert one.resume(queue="mail.*")
    assert later.deq(PATIENCE, queue="mail.old") == b"a"


def test_settings_outlive_gateways_and_servers(nats: NatsServer | NatsCluster, gateway: Gateway) -> None:
    one = gateway()
    one.enq("a")
    one.configure(paused=True, max_attempts=3)
    for node in [nats] if isinstance(nats, NatsServer) else nats.nodes:
        node.kill()
    nats.start()
    later = gateway()
    assert later.settings() == one.settings()
    assert later.settings().max_attempts == 3
    assert later.deq(0) is None
    assert later.resume()
    assert later.deq(PATIENCE) == b"a"


def test_so_many_are_leased_at_all_gateways_together(gateway: Gateway, threads: ThreadPoolExecutor) -> None:
    one, two = gateway(), gateway()
    one.configure(max_leased=1)
    one.enq_many(["a", "b", "c"])
    held = one.deq(PATIENCE)
    assert held == b"a"
    assert two.deq(0) is None
    taken = waiting(threads, two)
    one.configure(max_leased=2)
    assert taken.result(PATIENCE) == b"b"
    assert one.settings().max_leased == 2


def test_every_gateway_applies_what_one_was_told(gateway: Gateway) -> None:
    one, two = gateway(), gateway()
    one.configure(max_attempts=1, dead_letter_queue="lost.dead", ttl=0.0)
    two.enq("a")
    message = two.deq(PATIENCE)
    assert message is not None
    message.requeue(0)
    until(lambda: [each.decode() for each in one.peek_messages(queue="lost.dead")], ["a"])
    one.configure(ttl=1.0, reset=["max_attempts", "dead_letter_queue"])
    two.enq("b")
    two.enq("c", ttl=600.0)
    until(lambda: [each.decode() for each in one.peek_messages()], ["c"])
    one.configure(ack_timeout=0.5, reset=["ttl"])
    held = two.deq(PATIENCE)
    assert held == b"c"
    assert one.deq(PATIENCE) == b"c"  # its lease ran out


def test_two_gateways_that_change_settings_at_once_lose_none(gateway: Gateway) -> None:
    clients = [gateway(), gateway()]
    go = threading.Barrier(len(clients))

    def configure(number: int) -> None:
        go.wait(PATIENCE)
        for each in range(10):
            clients[number].configure(queue=f"q{number}-{each}", max_attempts=each + 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(configure, range(len(clients)), timeout=3 * PATIENCE))
    expected = {f"q{number}-{each}": each + 1 for number in range(2) for each in range(10)}
    for client in clients:
        until(lambda client=client: {s.queue: s.max_attempts for s in client.all_settings().settings}, expected)


def test_a_gateway_that_missed_a_change_learns_of_it(nats: NatsServer | NatsCluster) -> None:
    async def run() -> None:
        engines = [JetStreamEngine(nats.address, replicas=replicas(nats)) for _ in range(2)]
        for engine in engines:
            await engine.start()
        one, two = engines
        await one.shared.change(QueueSettings("q", max_attempts=7), [])  # and the other is not told
        assert two.settings("q").effective.max_attempts == 0  # type: ignore[union-attr]
        await asyncio.to_thread(until, lambda: two.shared.revision, one.shared.revision)
        assert two.settings("q").effective.max_attempts == 7  # type: ignore[union-attr]
        for engine in engines:
            await engine.close()

    asyncio.run(run())


def test_what_a_cluster_does_not_have_is_refused(
    nats: NatsServer | NatsCluster, gateway: Gateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = gateway()
    for name in ("max_messages", "max_bytes"):
        with pytest.raises(NotSupported, match=f"{name}: a cluster has the bounds"):
            client.configure(**{name: 5, "max_attempts": 2})
    assert client.all_settings().settings == []
    file = tmp_path / "queues.toml"
    file.write_text("[mail]\npaused = true\n")
    with pytest.raises(NotSupported, match="stiqueue settings"):
        SQServer(port=0, engine=nats.address, replicas=replicas(nats), queues=str(file)).start()
    monkeypatch.setattr(policies, "MAX_SETTINGS", 2)
    client.configure(queue="a", max_attempts=1)
    client.configure(queue="b", max_attempts=1)
    with pytest.raises(LimitReached, match="the limit"):
        client.configure(queue="c", max_attempts=1)


def test_deliveries_go_on_while_a_queue_nobody_uses_is_paused(gateway: Gateway) -> None:
    one = gateway()
    one.pause(queue="unused")
    assert one.counts(queue="unused").paused
    one.enq("a")
    assert one.deq(PATIENCE) == b"a"
    assert [each.state for each in one.peek_messages(state=State.ALL)] == [State.LEASED]
