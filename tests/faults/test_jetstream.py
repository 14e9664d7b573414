"""The cluster's engine: what it refuses (51), death of a gateway (57), order (58), dead letters (59).

Fault 47: the same history on a data file and on the cluster's engine gets the same verdict. On one server; those that
take `servers` also on three, with `soak`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.nats_servers import NatsCluster, NatsServer
from support.ports import free_port
from support.waiting import until

from stiqueue import SQClient
from stiqueue.engines.jetstream import JetStreamEngine
from stiqueue.engines.jetstream.publishing import DEAD_ROOM, ROOM
from stiqueue.errors import InvalidRequest, StoreError, Unavailable
from stiqueue.limits import MAX_REASON_BYTES
from stiqueue.message import DEAD_REASON_HEADER, Batch, Durability, Outcome, Settlement, Subscription
from stiqueue.v1 import queue_pb2 as pb

from .checker import Expectation
from .processes import ServerProcess, wait_until
from .recorder import read_history
from .run import Run

SECOND = 1_000_000_000
ACK_WAIT_SECONDS = 30.0
SLACK_SECONDS = 4.0
"""What a busy machine may add to it."""


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    """A NATS server of this test alone."""
    server = NatsServer(tmp_path / "nats")
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture(params=[1, pytest.param(3, marks=pytest.mark.soak)], ids=["one server", "three servers"])
def servers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer | NatsCluster]:
    """One NATS server, or three that are a cluster."""
    started = NatsServer(tmp_path / "nats") if request.param == 1 else NatsCluster(*[tmp_path / "nats"] * 3)
    try:
        yield started.start()
    finally:
        started.end()


def replicas(servers: NatsServer | NatsCluster) -> int:
    """Return on how many servers each message is to be."""
    return 1 if isinstance(servers, NatsServer) else 3


def gateway(run: Run, servers: NatsServer | NatsCluster, *options: str) -> ServerProcess:
    """Start a server that keeps its messages in `servers`."""
    return run.server("--engine", servers.address, "--replicas", str(replicas(servers)), *options)


# -- 51: what is refused ----------------------------------------------------------------------------------------------


async def started(address: str, **options: object) -> JetStreamEngine:
    """Start an engine and stop it again; return it."""
    engine = JetStreamEngine(address, **options)  # type: ignore[arg-type]
    await engine.start()
    await engine.close()
    return engine


@pytest.mark.parametrize("sync", ["", "10s"])
def test_51_a_server_that_does_not_sync_is_refused_unless_that_is_accepted(tmp_path: Path, sync: str) -> None:
    server = NatsServer(tmp_path, sync=sync)
    try:
        server.start()
        with pytest.raises(StoreError, match="sync_interval: always"):
            asyncio.run(started(server.address, replicas=1))
        engine = asyncio.run(started(server.address, replicas=1, unsafe=True))
        assert engine.durability is Durability.MEMORY
    finally:
        server.end()


def test_51_one_server_cannot_keep_three_replicas(nats: NatsServer) -> None:
    for unsafe in (False, True):
        with pytest.raises(StoreError, match="3 replicas"):
            asyncio.run(started(nats.address, unsafe=unsafe))
    assert asyncio.run(started(nats.address, replicas=1)).durability is Durability.DISK


def test_51_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)
    try:
        server.start()
        with pytest.raises(StoreError, match="JetStream is off"):
            asyncio.run(started(server.address, replicas=1))
    finally:
        server.end()


def test_51_a_server_that_does_not_say_what_it_promises_is_refused(nats: NatsServer) -> None:
    silent = f"nats://127.0.0.1:{nats.port}?monitor={free_port()}"
    with pytest.raises(StoreError, match="monitoring port"):
        asyncio.run(started(silent, replicas=1))


def test_51_an_old_server_is_refused_whatever_is_accepted() -> None:
    """A server that says that it is Debian's."""

    async def old_server(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        info = {"server_id": "old", "version": "2.9.10", "headers": True, "max_payload": 1 << 20, "jetstream": True}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")
        writer.close()

    async def connect() -> None:
        async with await asyncio.start_server(old_server, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            for unsafe in (False, True):
                with pytest.raises(StoreError, match=r"2\.9\.10"):
                    await started(f"nats://127.0.0.1:{port}", replicas=1, unsafe=unsafe)

    asyncio.run(connect())


@pytest.mark.slow
def test_51_nobody_there_is_refused_in_one_line(run: Run) -> None:
    server = run.server("--engine", f"nats://127.0.0.1:{free_port()}", start=False)
    server.start(ready=False)
    assert server.wait(20) == 1
    assert server.log.strip().splitlines()[-1].startswith("stiqueue: cannot connect to any NATS server of")
    assert "Traceback" not in server.log


# -- 57: a gateway dies -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_57_what_a_killed_gateway_held_comes_back_in_time_and_ascending(
    run: Run, servers: NatsServer | NatsCluster
) -> None:
    """Another gateway delivers it 30 s after the last sign of life of the dead one, at the latest 1 s later."""
    first, second = gateway(run, servers), gateway(run, servers)
    values = run.fill(30)
    holder = run.client("consume", "h", "--prefetch", 10, "--then", "hold", "--once")
    holder.wait_for("holding 10")
    killed = run.inject.kill(first)
    other = run.client("consume", "o", "--prefetch", 100, target=second.target)

    def returned() -> bool:
        return sum(event.op == "deq" for event in read_history(run.directory, "o")) >= len(values)

    wait_until(returned, ACK_WAIT_SECONDS + 60, "everything came", every=0.2)
    last = max(event.t for event in read_history(run.directory, "o") if event.op == "deq")
    print(f"given back {(last - killed) / SECOND:.1f} s after the kill")
    assert last - killed <= (ACK_WAIT_SECONDS + 1 + SLACK_SECONDS) * SECOND
    came = [event.value for event in read_history(run.directory, "o") if event.op == "deq"]
    assert [value for value in came if value in values[:10]] == values[:10]
    run.stop_clients([other])
    run.servers.reverse()
    run.drain()
    run.assert_good(Expectation(confirmed=30))


@pytest.mark.alone
def test_57_a_gateway_that_is_asked_to_stop_gives_back_at_once(run: Run, servers: NatsServer | NatsCluster) -> None:
    first, second = gateway(run, servers, "--grace", "0"), gateway(run, servers)
    values = run.fill(10)
    holder = run.client("consume", "h", "--prefetch", 10, "--then", "hold", "--once")
    holder.wait_for("holding 10")
    stub = run.stub(second.target)
    stub.Cnt(pb.CntRequest(queues=["default"]), timeout=20, wait_for_ready=True)  # connects
    signalled = run.inject.terminate(first)
    request = pb.DeqRequest(prefetch=10, max_messages=10)
    stream = stub.Deq(request, timeout=20)
    came = [message.body for response in [next(stream)] for message in response.messages]
    took = (time.monotonic_ns() - signalled) / SECOND
    print(f"given back {took:.2f} s after the signal")
    assert took <= 2.0
    assert came[0].startswith(values[0].encode())
    stream.cancel()
    assert first.wait() == 0


def test_57_any_gateway_takes_the_ack_of_a_lease(run: Run, servers: NatsServer | NatsCluster) -> None:
    first, second = gateway(run, servers), gateway(run, servers)
    run.fill(3)
    stream = run.stub(first.target).Deq(pb.DeqRequest(), timeout=20)
    other = run.stub(second.target)
    for _ in range(3):
        (message,) = next(stream).messages
        lease = pb.AckRequest(lease_ids=[message.lease_id])
        assert list(other.Ack(lease, timeout=5).stale_lease_ids) == []
        assert list(other.Ack(lease, timeout=5).stale_lease_ids) == [message.lease_id]
    counts = other.Cnt(pb.CntRequest(queues=["default"]), timeout=5).queues[0]
    assert (counts.ready, counts.leased, counts.consumers, counts.acked) == (0, 0, 1, 3)
    stream.cancel()


# -- 58: order after giving back --------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [1, 2, 5])
def test_58_what_a_cancelled_stream_held_comes_first_and_ascending(
    run: Run, servers: NatsServer | NatsCluster, held: int
) -> None:
    gateway(run, servers)
    values = run.fill(20)
    holder = run.client("consume", "h", "--prefetch", held, "--then", "hold", "--once")
    holder.wait_for(f"holding {held}")
    run.inject.kill(holder)
    run.wait_for_counts(5, ready=20, leased=0)
    time.sleep(0.1)  # the give-back is confirmed a moment after it shows
    assert [each.value for each in run.take_ready()] == values
    run.drain()
    run.assert_good(Expectation(confirmed=20, one_consumer=True))


def test_58_two_streams_that_end_together_give_back_ascending_each(run: Run, servers: NatsServer | NatsCluster) -> None:
    gateway(run, servers)
    values = run.fill(20)
    holders = []
    for name in ("h1", "h2"):
        holder = run.client("consume", name, "--prefetch", 5, "--then", "hold", "--once")
        holder.wait_for("holding 5")
        holders.append(holder)
    run.inject.kill(*holders)
    run.wait_for_counts(5, ready=20, leased=0)
    time.sleep(0.1)
    came = [each.value for each in run.take_ready()]
    assert sorted(came[:10], key=values.index) == values[:10]
    for part in (values[:5], values[5:10]):
        assert [value for value in came if value in part] == part
    assert came[10:] == values[10:]
    run.drain()
    run.assert_good(Expectation(confirmed=20))


# -- 59: dead letters -------------------------------------------------------------------------------------------------


def test_59_a_poisonous_message_is_moved_and_holds_up_nobody(run: Run, servers: NatsServer | NatsCluster) -> None:
    gateway(run, servers, "--max-attempts", "3")
    run.fill(1)
    stub = run.stub()
    for attempt in range(1, 4):
        (message,) = next(stub.Deq(pb.DeqRequest(max_messages=1), timeout=5)).messages
        assert message.attempt == attempt
        if attempt == 3:  # not before: NATS may deliver the second while it has not read of the first one's return
            run.fill(1, name="second")
        stub.Ack(pb.AckRequest(lease_ids=[message.lease_id], outcome=pb.OUTCOME_REQUEUE), timeout=5)
    run.wait_for_counts(5, ready=1, leased=0, dead_lettered=1)
    run.wait_for_counts(5, "default.dead", ready=1)
    (message,) = next(stub.Deq(pb.DeqRequest(max_messages=1, no_ack=True), timeout=5)).messages
    assert message.attempt == 1


def test_59_the_largest_message_has_a_dead_letter_with_the_longest_reason(
    run: Run, servers: NatsServer | NatsCluster
) -> None:
    """What is accepted leaves room for the headers of its dead letter; a control character takes six bytes in these."""
    server = gateway(run, servers, "--buff-size", str(16 << 20))
    largest = bytes((8 << 20) - ROOM - DEAD_ROOM)  # the clusters of these tests take 8 MiB
    with SQClient(port=server.port, buff_size=16 << 20) as client:
        with pytest.raises(InvalidRequest, match="above the cluster's limit"):
            client.enq(largest + b"x")
        client.enq(largest)
        reason = "\x01" * MAX_REASON_BYTES
        assert client.deq(timeout=5).dead_letter(reason)  # type: ignore[union-attr]
        (letter,) = client.peek_messages(queue="default.dead")
        assert (letter, letter.headers[DEAD_REASON_HEADER]) == (largest, reason)


def test_59_dead_letters_are_redriven(run: Run, servers: NatsServer | NatsCluster) -> None:
    """In two steps, for a cluster cannot enqueue and acknowledge in one."""
    gateway(run, servers)
    run.fill(3)
    host, _, port = run.servers[0].target.rpartition(":")
    with SQClient(host, int(port), auto_ack=False) as client:
        for _ in range(3):
            assert client.deq(timeout=5).dead_letter("poison")  # type: ignore[union-attr]
        assert client.redrive() == 3
        # A server that follows may count what the leader has removed a moment longer.
        until(lambda: (client.cnt(), client.cnt(queue="default.dead")), (3, 0))
        assert [each.headers for each in client.peek_messages()] == [{}] * 3


def test_59_a_crash_between_copy_and_removal_leaves_it_in_one_or_both_and_never_a_second_copy(
    servers: NatsServer | NatsCluster,
) -> None:
    async def crash_and_recover() -> None:
        dying = JetStreamEngine(servers.address, replicas(servers), max_attempts=1, ack_wait=2.0)
        await dying.start()
        await dying.enq(Batch("q", [b"poison"]))
        taken = asyncio.Event()
        consumer = dying.subscribe(Subscription("q"), taken.set)
        while not (leases := consumer.take()):
            await asyncio.wait_for(taken.wait(), 5)
            taken.clear()

        async def power_off(*_: object) -> list[int]:
            await dying.cluster.close()  # the copy is confirmed, the original still there
            return [0]

        dying.cluster.confirm = power_off  # type: ignore[method-assign,assignment]
        for _ in range(3):  # a busy cluster may not make the dead letter queue in time
            with pytest.raises(Unavailable) as raised:
                await dying.settle(Settlement([leases[0].lease_id], Outcome.DEAD_LETTER, reason="poison"))
            if "did not confirm" in str(raised.value):
                break

        healthy = JetStreamEngine(servers.address, replicas(servers), max_attempts=1, ack_wait=2.0)
        await healthy.start()
        counts = {each.queue: each for each in await healthy.counts(["q", "q.dead"])}
        assert counts["q.dead"].ready == 1
        assert counts["q"].ready == 1, "in both"
        rung = asyncio.Event()
        undertaker = healthy.subscribe(Subscription("q"), rung.set)
        deadline = time.monotonic() + 10
        while (await healthy.counts(["q"]))[0].ready and time.monotonic() < deadline:
            assert undertaker.take() == [], "it is not delivered once more"
            await asyncio.sleep(0.05)
        counts = {each.queue: each for each in await healthy.counts(["q", "q.dead"])}
        assert (counts["q"].ready, counts["q"].leased, counts["q.dead"].ready) == (0, 0, 1)
        await healthy.close()
        await dying.close()

    asyncio.run(asyncio.wait_for(crash_and_recover(), 40))


# -- 47: the same on both engines -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_47_the_history_of_a_data_file(run: Run) -> None:
    judge_one_history(run, "--data", str(run.directory / "queue.db"))


@pytest.mark.slow
def test_47_the_same_history_on_jetstream_gets_the_same_verdict(run: Run, servers: NatsServer | NatsCluster) -> None:
    judge_one_history(run, "--engine", servers.address, "--replicas", str(replicas(servers)))


def judge_one_history(run: Run, *options: str) -> None:
    """Load, a consumer killed, the server killed under load and started again, a drain: nothing lost, nothing twice."""
    server = run.server(*options)
    producers = [run.client("produce", f"p{n}", "--batch", 50, "--rate", 30) for n in range(3)]
    consumers = [run.client("consume", f"c{n}", "--prefetch", 20) for n in range(4)]
    for client in [*producers, *consumers]:
        client.wait_for("ready")
    wait_until(lambda: run.counts().acked >= 1_000, 90, "load")
    run.inject.kill(consumers[0])
    wait_until(lambda: run.counts().acked >= 2_000, 90, "load after a consumer's death")
    run.inject.kill(server)
    run.inject.restart(server)
    wait_until(lambda: run.counts().acked >= 1_000, 90, "load after the server's death")
    run.stop_clients([*producers, *consumers[1:]])
    run.drain()
    run.assert_good(Expectation(confirmed=3_000))
