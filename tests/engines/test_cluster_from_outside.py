"""What a cluster brings that StiQueue did not put there: servers without TLS or login, and messages of others."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext
from support.nats_servers import NatsServer
from support.ports import free_port
from support.waiting import Call, soon, until

from stiqueue import LimitReached, SQClient, SQServer, StiQueueError, StoreError, Worker
from stiqueue.engines.jetstream import JetStreamEngine, cluster, sweeper
from stiqueue.engines.jetstream.cluster import Cluster
from stiqueue.engines.jetstream.names import Names
from stiqueue.message import Batch, Subscription

FOREIGN = [
    "x",
    "[]",
    "5",
    '{"h":5}',
    '{"h":{"a":1}}',
    '{"t":"x"}',
    '{"t":null}',
    '{"x":[1]}',
    '{"x":true}',
]
"""Values of our header that another program wrote."""


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path)
    try:
        yield server.start()
    finally:
        server.end()


def failure(monkeypatch: pytest.MonkeyPatch, address: str) -> str:
    """Return why there is no connection."""
    monkeypatch.setattr(cluster, "START_SECONDS", 1.0)

    async def connect() -> None:
        connection = Cluster([address], "test", logging.getLogger("quiet"))
        try:
            await connection.connect()
        finally:
            await connection.close()

    with pytest.raises(StoreError) as failed:
        asyncio.run(connect())
    return str(failed.value)


def test_an_absent_server_is_named_without_the_password(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    text = failure(monkeypatch, f"nats://ann:secret@127.0.0.1:{port}")
    assert text.startswith(f"cannot connect to any NATS server of 127.0.0.1:{port}: ")
    assert "[Errno 111]" in text
    assert "secret" not in text


def test_a_password_is_not_sent_to_a_server_without_tls(monkeypatch: pytest.MonkeyPatch, nats: NatsServer) -> None:
    sent: list[bytes] = []
    make = Client._connect_command

    def note(self: Client) -> bytes:
        sent.append(make(self))
        return sent[-1]

    monkeypatch.setattr(Client, "_connect_command", note)
    assert "no TLS, but the address says tls://" in failure(monkeypatch, f"tls://ann:secret@127.0.0.1:{nats.port}")
    assert sent == []


def test_a_header_that_another_program_wrote_says_nothing(nats: NatsServer) -> None:
    async def publish() -> None:
        client = Client()
        await client.connect(nats.address)
        for text in FOREIGN:
            await client.jetstream().publish("stiqueue.q.jobs.ready", text.encode(), headers={"Stiqueue": text})
        await client.close()

    with (
        SQServer(port=0, engine=nats.address, replicas=1) as server,
        SQClient(port=server.port, queue="jobs") as client,
    ):
        client.enq("ours")
        asyncio.run(publish())
        bodies = ["ours", *FOREIGN]
        assert client.counts().ready == len(bodies)
        assert [each.decode() for each in client.peek_messages(0)] == bodies
        for body in bodies:
            message = client.deq(timeout=10.0)
            assert message is not None
            assert (message.decode(), message.headers) == (body, {})
        assert client.ack()


async def with_stream(nats: NatsServer, work: Callable[[JetStreamContext], Awaitable[object]]) -> None:
    client = Client()
    await client.connect(nats.address)
    await work(client.jetstream())
    await client.close()


def attempts(client: SQClient, queue: str = "s") -> int | None:
    return client.settings(queue=queue).max_attempts


def test_gateways_agree_after_somebody_has_removed_the_settings(nats: NatsServer) -> None:
    """The numbers of changes begin anew then."""
    with (
        SQServer(port=0, engine=nats.address, replicas=1) as server,
        SQServer(port=0, engine=nats.address, replicas=1) as other_server,
        SQClient(port=server.port) as client,
        SQClient(port=other_server.port) as other,
    ):
        for most in range(1, 4):
            client.configure(queue="s", max_attempts=most)
        until(lambda: attempts(other), 3)
        asyncio.run(with_stream(nats, lambda stream: stream.delete_key_value("stiqueue-settings")))
        client.configure(queue="s", max_attempts=7)
        until(lambda: attempts(other), 7)
        other.configure(queue="t", max_attempts=8)
        until(lambda: attempts(client, "t"), 8)
        assert attempts(client) == attempts(other) == 7


def test_settings_that_another_program_wrote_are_ignored(nats: NatsServer, caplog: pytest.LogCaptureFixture) -> None:
    def put(text: str) -> None:
        async def write(stream: JetStreamContext) -> None:
            bucket = await stream.key_value("stiqueue-settings")
            await bucket.put("queues", text.encode())

        asyncio.run(with_stream(nats, write))
        caplog.clear()

    def told() -> list[str]:
        return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]

    with SQServer(port=0, engine=nats.address, replicas=1) as server, SQClient(port=server.port) as client:
        client.configure(queue="s", max_attempts=3)
        for text in ("{garbage", "5", "[" * 100_000):
            put(text)
            with SQServer(port=0, engine=nats.address, replicas=1) as another, SQClient(port=another.port) as fresh:
                (line, *_) = told()
                assert line.startswith("the settings of queues in the cluster cannot be read, and are ignored: ")
                assert attempts(fresh) == 0
            assert attempts(client) == 3
        put('[5, {"queue": "s", "max_attempts": "x"}, {"queue": "t", "max_attempts": 4}]')
        with SQServer(port=0, engine=nats.address, replicas=1) as another, SQClient(port=another.port) as fresh:
            assert told()[0].startswith("2 settings of queues in the cluster are ignored; the first: ")
            assert attempts(fresh, "t") == 4
            fresh.configure(queue="s", max_attempts=5)
            until(lambda: (attempts(client), attempts(client, "t")), (5, 4))
        assert not any(each.exc_info for each in caplog.records)


@pytest.mark.parametrize("noticed", ["at once", "after a reconnect"])
@pytest.mark.parametrize("end", ["ack", "leave"])
def test_an_old_lease_does_nothing_to_a_message_of_a_new_stream(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, end: str, noticed: str
) -> None:
    if noticed != "at once":
        monkeypatch.setattr(Names, "removals", ())
    with (
        SQServer(port=0, engine=nats.address, replicas=1) as server,
        SQServer(port=0, engine=nats.address, replicas=1) as other_server,
        SQClient(port=server.port, queue="jobs", auto_ack=False) as client,
        SQClient(port=other_server.port, queue="jobs", auto_ack=False) as other,
    ):
        client.enq("old")
        old = client.deq(timeout=10.0)
        assert old is not None
        asyncio.run(with_stream(nats, lambda stream: stream.delete_stream("stiqueue-jobs")))
        until(lambda: enqueued(other, "new"))
        new = other.deq(timeout=10.0)
        assert new is not None
        assert (new.id, bytes(new)) == (old.id, b"new")
        if noticed != "at once":
            nats.terminate()  # killed, it may forget that it has delivered
            nats.start()
        until(lambda: client.counts().leased, 1)
        if end == "ack":
            assert not old.ack()
        else:
            client.disconnect()
            until(lambda: other.counts().consumers, 1)
        assert (other.counts().ready, other.counts().leased) == (0, 1)
        assert other.deq(timeout=0.2) is None
        assert new.ack()
        until(lambda: other.counts().leased, 0)


def enqueued(client: SQClient, msg: str) -> bool:
    try:
        client.enq(msg)
    except StiQueueError:
        return False
    return True


def test_streams_of_answers_that_nobody_reads_are_removed(monkeypatch: pytest.MonkeyPatch, nats: NatsServer) -> None:
    left = ["jobs", "stiqueue-answers.has-one", "stiqueue-answers.is-read"]

    async def sweep() -> list[str]:
        engine = JetStreamEngine(nats.address, 1)
        await engine.start()
        for queue in [*left, "stiqueue-answers.left", "stiqueue-answers.left-too"]:
            await engine.streams.ensure(queue)
        await engine.enq(Batch("stiqueue-answers.has-one", [b"49"]))
        reader = engine.subscribe(Subscription("stiqueue-answers.is-read"), lambda: None)
        assert reader.take() == []

        async def waiting() -> object:
            path = "CONSUMER.INFO.stiqueue-stiqueue-answers=is-read.workers"
            return (await engine.cluster.call(path))["num_waiting"]

        await soon(waiting, 1)
        await engine.sweeper.sweep()
        assert len(await engine.streams.existing("*")) == 5, "they were used just now"
        monkeypatch.setattr(sweeper, "IDLE_SECONDS", 0.0)
        await engine.sweeper.sweep()
        found = await engine.streams.existing("*")
        await engine.enq(Batch("stiqueue-answers.left", [b"late"]))  # and can be made again
        await engine.close()
        return found

    assert sorted(asyncio.run(asyncio.wait_for(sweep(), 30.0))) == left


def test_calls_need_no_room_among_the_queues(nats: NatsServer) -> None:
    with (
        SQServer(port=0, engine=nats.address, replicas=1, max_queues=1) as server,
        SQClient(port=server.port, queue="jobs", timeout=10.0) as client,
    ):
        worker = Worker(lambda message: message.decode() * 2, "jobs", port=server.port)
        running = Call(worker.run)
        try:
            assert client.call("a") == b"aa"
            with pytest.raises(LimitReached):
                client.enq("x", queue="another")
        finally:
            worker.stop()
            running.result()
