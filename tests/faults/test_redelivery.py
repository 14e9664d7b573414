"""A message that was acknowledged, or is at work, is not given to anybody else when a server of the cluster hangs."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from nats.aio.msg import Msg
from support.nats_servers import NatsServer

from stiqueue.engines.jetstream import JetStreamEngine
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.errors import Unavailable
from stiqueue.message import Batch, Settlement, Subscription
from stiqueue.rules.entry import Leased

from .checker import Expectation
from .history import CLUSTER, SECOND
from .processes import ServerProcess, wait_until
from .recorder import read_history
from .run import Run
from .site import STREAM, Site

ACK_WAIT_SECONDS = 30.0
HELD = 20


def server_of(site: Site, gateway: ServerProcess) -> NatsServer:
    """Return the server that a gateway is connected to."""
    (name,) = re.findall(r"\(gateway (\w+)\)", gateway.log)[-1:]
    for node in site.cluster.nodes:
        if any(each.get("name", "").endswith(name) for each in node.ask("connz")["connections"]):
            return node
    raise LookupError(f"{gateway.name} is not connected")


def test_what_does_harm_when_it_comes_twice_is_sent_again_only_if_nobody_got_it(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)

    async def send() -> None:
        cluster, came = Cluster([f"nats://127.0.0.1:{server.port}"], "test", logging.getLogger()), list[bytes]()
        await cluster.connect()
        sending = asyncio.create_task(cluster.confirm_once([("to.a", b"1"), ("to.b", b"2"), ("to.c", b"3")], 1.5))
        await asyncio.sleep(0.3)  # nobody is there meanwhile

        async def silent(message: Msg) -> None:
            came.append(message.data)

        async def polite(message: Msg) -> None:
            came.append(message.data)
            await message.respond(b"")

        await cluster.subscribe("to.a", silent)
        await cluster.subscribe("to.b", polite)
        assert await sending == [0, 2], "no answer is no proof"
        assert sorted(came) == [b"1", b"2"]
        await cluster.close()

    try:
        server.start()
        asyncio.run(send())
    finally:
        server.end()


def test_what_was_asked_before_the_connection_was_lost_is_not_waited_for(tmp_path: Path) -> None:
    server = NatsServer(tmp_path, jetstream=False)

    async def ask() -> None:
        cluster = Cluster([f"nats://127.0.0.1:{server.port}"], "test", logging.getLogger())
        await cluster.connect()

        asked = asyncio.Event()

        async def silent(_: Msg) -> None:
            asked.set()

        await cluster.subscribe("to.nobody", silent)
        asking = asyncio.create_task(cluster.ask("to.nobody", timeout=30))
        await asked.wait()
        server.kill()
        server.start()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(asking, 15)
        await cluster.close()

    try:
        server.start()
        asyncio.run(ask())
    finally:
        server.end()


def test_the_next_message_comes_before_an_ack_is_stored_and_one_that_is_not_stored_can_be_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = NatsServer(tmp_path)
    stored = asyncio.Event()

    async def never_stored(messages: Iterable[tuple[str, bytes]], timeout: float) -> list[int]:
        await stored.wait()
        return [index for index, _ in enumerate(messages)]

    async def work() -> None:
        engine = JetStreamEngine(server.address, 1)
        await engine.start()
        await engine.enq(Batch("q", [b"first", b"second"]))
        rung = asyncio.Event()
        consumer = engine.subscribe(Subscription("q", prefetch=1), rung.set)

        async def taken() -> Leased:
            while not (messages := consumer.take()):
                await asyncio.wait_for(rung.wait(), 10)
                rung.clear()
            (message,) = messages
            return message

        first = await taken()
        with monkeypatch.context() as patch:
            patch.setattr(engine.cluster, "confirm", never_stored)
            acking = asyncio.create_task(engine.settle(Settlement([first.lease_id])))
            second = await taken()
            assert (first.body, second.body, acking.done()) == (b"first", b"second", False)
            stored.set()
            with pytest.raises(Unavailable):
                await acking
        assert consumer.take() == []
        assert await engine.settle(Settlement([first.lease_id, second.lease_id])) == [], "both are held until then"
        (counts,) = await engine.counts(["q"])
        assert (counts.ready, counts.leased, counts.acked) == (0, 0, 2)
        await engine.close()

    try:
        server.start()
        asyncio.run(work())
    finally:
        server.end()


@pytest.mark.soak
def test_what_is_given_back_through_a_server_that_hangs_is_given_back_once(run: Run) -> None:
    """It hears of it when it goes on, and tells the others: somebody else has got the messages by then."""
    with Site(run).start() as site:
        run.fill(HELD)
        leader = site.cluster.consumer_leader_of(STREAM)
        via, other = site.gateways
        if server_of(site, via) is leader:
            via, other = other, via
        hanging = server_of(site, via)
        print(f"{leader.name} leads, {hanging.name} hangs")
        holder = run.client("consume", "h", "--prefetch", HELD, "--then", "hold", "--once", target=via.target)
        holder.wait_for(f"holding {HELD}")
        run.inject.begins(CLUSTER, "stopped")
        hanging.pause()
        run.inject.took_effect(CLUSTER, "stopped")
        killed = run.inject.kill(holder)
        heir = run.client("consume", "heir", "--prefetch", HELD, "--then", "hold", "--once", target=other.target)
        wait_until(lambda: "connected to NATS again" in via.log, 90, "another server")
        heir.wait_for(f"holding {HELD}", 60)
        took = (time.monotonic_ns() - killed) / SECOND
        print(f"given back after {took:.1f} s")
        assert took < ACK_WAIT_SECONDS - 5, "it is not told to a server that hangs, but to the next"
        late = run.client("consume", "late", "--prefetch", HELD, "--then", "hold", "--once", target=other.target)
        late.wait_for("ready")
        hanging.resume()
        site.cluster.wait_ready()
        run.fill(1, name="marker")
        late.wait_for("holding")
        heir.order("ack")
        heir.wait_for(f"acked {HELD} stale 0")
        late.order("ack")
        late.wait_for("acked")
        run.inject.healed(CLUSTER)
        came = [event.value for event in read_history(run.directory, "late") if event.op == "deq"]
        print(came)
        assert came == ["marker-1"]
        run.stop_clients()
        run.drain()
        run.assert_good(Expectation(confirmed=HELD + 1))


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_consumers_leader_that_hangs_for_longer_than_leases_last_delivers_nothing_again(run: Run) -> None:
    """The others go on without it. When it goes on, it knows of messages only that they were on their way."""
    with Site(run).start() as site:
        site.load(producers=4, consumers=6, rate=10)
        for number in range(3):
            leader = site.cluster.consumer_leader_of(STREAM)

            def hang(leader: NatsServer = leader) -> None:
                leader.pause()
                time.sleep(ACK_WAIT_SECONDS + 3)

            site.fault(f"{leader.name} stopped, {number}", hang, leader.resume)
        site.finish(confirmed=1_000)
