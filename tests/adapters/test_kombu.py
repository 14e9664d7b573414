"""The transport of kombu, on a server in this process: what channels and connections promise."""

from __future__ import annotations

import logging
import ssl
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from typing import Any

import kombu
import pytest
from kombu.asynchronous import Hub
from kombu.exceptions import ChannelError, OperationalError
from support.ports import free_port
from support.waiting import Call, until

import stiqueue.adapters.celery
from stiqueue import TLS, SQClient, SQServer, Unavailable
from stiqueue.adapters.celery.transport import tls_of


def url(server: SQServer, more: str = "") -> str:
    return f"stiqueue://127.0.0.1:{server.port}{more}"


@pytest.fixture
def connection(server: SQServer) -> Iterator[kombu.Connection]:
    with kombu.Connection(url(server)) as connection:
        yield connection


@pytest.fixture
def publish(connection: kombu.Connection) -> Callable[..., None]:
    """Enqueue in the queue "jobs", or another."""

    def publish(body: Any, queue: str = "jobs", **options: Any) -> None:
        connection.Producer().publish(body, routing_key=queue, **options)

    return publish


class Reader:
    """A consumer that keeps what it is given."""

    def __init__(self, connection: kombu.Connection, *queues: str, prefetch: int = 0, **options: Any) -> None:
        self.messages: list[Any] = []
        self._connection = connection
        self.consumer = kombu.Consumer(
            connection.channel(),
            [kombu.Queue(queue) for queue in queues],
            on_message=self.messages.append,
            prefetch_count=prefetch or None,
            **options,
        )
        self.consumer.consume()

    def read(self, number: int) -> list[Any]:
        """Wait until there are `number` messages in all; return their bodies."""
        while len(self.messages) < number:
            self._connection.drain_events(timeout=20)
        return [message.decode() for message in self.messages]

    def close(self) -> None:
        self.consumer.close()
        self.consumer.channel.close()


def test_what_is_acked_is_gone(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    publish({"a": 1})
    reader = Reader(connection, "jobs")
    assert reader.read(1) == [{"a": 1}]
    reader.messages[0].ack()
    until(lambda: client.counts(queue="jobs").acked, 1)


def test_what_is_rejected_is_a_dead_letter(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    publish("a")
    reader = Reader(connection, "jobs")
    reader.read(1)
    reader.messages[0].reject()
    until(lambda: client.cnt(queue="jobs.dead"), 1)
    assert client.counts(queue="jobs").leased == 0


FOREIGN = [
    b"",
    b"\xff",
    b"{",
    b"{}",
    b"[]",
    b"9" * 5_000,
    b"[" * 100_000,
    b'{"properties": 5}',
    b'{"properties": {"delivery_info": []}}',
    b'{"properties": {"body_encoding": "base64"}, "body": "a"}',
    b'{"properties": {"body_encoding": "none such"}, "body": "a"}',
]
"""What no program with kombu enqueues."""


@pytest.mark.parametrize("prefetch", [0, 1])
def test_what_another_program_enqueued_is_a_dead_letter(
    connection: kombu.Connection, publish: Any, client: SQClient, prefetch: int
) -> None:
    client.enq_many(FOREIGN, queue="jobs")
    publish("good")
    reader = Reader(connection, "jobs", prefetch=prefetch)
    assert reader.read(1) == ["good"]
    until(lambda: client.cnt(queue="jobs.dead"), len(FOREIGN))
    letters = client.peek_messages(0, queue="jobs.dead")
    assert sorted(map(bytes, letters)) == sorted(FOREIGN)
    assert all(letter.headers["stiqueue-dead-reason"].startswith("not a message of kombu: ") for letter in letters)


def test_a_get_passes_what_another_program_enqueued(
    connection: kombu.Connection, publish: Any, client: SQClient
) -> None:
    client.enq_many(FOREIGN, queue="jobs")
    publish("good")
    channel = connection.channel()
    found = channel.basic_get("jobs")
    assert found.decode() == "good"
    assert channel.basic_get("jobs") is None
    channel.close()
    until(lambda: client.cnt(queue="jobs.dead"), len(FOREIGN))


def test_what_is_requeued_comes_again_and_says_so(connection: kombu.Connection, publish: Any) -> None:
    publish("a")
    reader = Reader(connection, "jobs")
    reader.read(1)
    reader.messages[0].requeue()
    reader.read(2)
    assert [message.delivery_info["redelivered"] for message in reader.messages] == [False, True]


def test_a_body_of_bytes_stays_as_it_is(connection: kombu.Connection, publish: Any) -> None:
    publish(bytes(range(256)), content_type="application/data", content_encoding="binary")
    reader = Reader(connection, "jobs", accept=["application/data"])
    reader.read(1)
    assert reader.messages[0].body == bytes(range(256))


def test_a_higher_priority_comes_first(connection: kombu.Connection, publish: Any) -> None:
    for priority in (0, 9, 300, None, 5):
        publish(str(priority), priority=priority)
    assert Reader(connection, "jobs").read(5) == ["300", "9", "5", "0", "None"]


def test_the_eta_of_a_task_is_the_servers_delay(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    eta = (datetime.now(timezone.utc) + timedelta(hours=1)).isoformat()
    past = (datetime.now(timezone.utc) - timedelta(hours=1)).isoformat()
    publish("later", headers={"task": "t", "eta": eta})
    publish("now", headers={"task": "t", "eta": past})
    publish("no task", headers={"eta": eta})
    publish("nonsense", headers={"task": "t", "eta": "tomorrow"})
    counts = client.counts(queue="jobs")
    assert (counts.ready, counts.delayed) == (3, 1)
    reader = Reader(connection, "jobs")
    reader.read(3)
    assert [message.headers.get("eta") for message in reader.messages] == [None, eta, "tomorrow"]
    assert reader.messages[0].headers["stiqueue_eta"] == past


def test_an_expiration_is_a_ttl_except_of_tasks(publish: Any, client: SQClient) -> None:
    """A worker that finds an expired task records that in its result."""
    publish("a task", headers={"task": "t"}, expiration=0.05)
    publish("a", expiration=0.05)
    until(lambda: client.counts(queue="jobs").expired, 1)
    assert [peeked.expire_time_ms for peeked in client.peek_messages(queue="jobs")] == [0]


def test_no_more_is_sent_than_the_prefetch_count(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    for number in range(10):
        publish(number)
    reader = Reader(connection, "jobs", prefetch=3)
    assert reader.read(3) == [0, 1, 2]
    assert client.counts(queue="jobs").leased == 3
    reader.messages[0].ack()
    assert reader.read(4) == [0, 1, 2, 3]
    reader.consumer.qos(prefetch_count=5)
    assert reader.read(6) == [0, 1, 2, 3, 4, 5]
    assert client.counts(queue="jobs").leased == 5


def test_a_smaller_prefetch_count_gives_back_what_is_too_much(
    connection: kombu.Connection, publish: Any, client: SQClient
) -> None:
    for number in range(20):
        publish(number)
    reader = Reader(connection, "jobs", prefetch=4)
    reader.read(4)
    reader.consumer.qos(prefetch_count=1)
    for message in reader.messages[:3]:
        message.ack()
    until(lambda: client.counts(queue="jobs").leased, 1)
    reader.messages[3].ack()
    assert reader.read(5) == [0, 1, 2, 3, 4]
    reader.messages[4].ack()
    assert reader.read(6) == [0, 1, 2, 3, 4, 5]


def test_two_queues_share_the_prefetch_count(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    """What the channel has no room for goes to others, although its stream was sent it."""
    reader = Reader(connection, "one", "two", prefetch=2)
    for number in range(2):
        publish(number, "one")
    reader.read(2)
    for number in range(2, 4):
        publish(number, "two")
    with SQClient(port=client.port, queue="two") as other:
        assert [other.deq(timeout=20), other.deq(timeout=20)] != [None, None]
    publish(4, "two")
    for message in reader.messages:
        message.ack()
    assert reader.read(3)[2] == 4


def test_a_cancelled_consumer_gives_back_what_it_has_not_seen(
    connection: kombu.Connection, publish: Any, client: SQClient
) -> None:
    for number in range(6):
        publish(number)
    reader = Reader(connection, "jobs", prefetch=4)
    reader.read(1)
    until(lambda: client.counts(queue="jobs").leased, 4)
    reader.consumer.cancel()
    until(lambda: client.counts(queue="jobs").leased, 1)
    assert [message.attempt for message in client.peek_messages(queue="jobs")] == [0] * 5
    reader.messages[0].ack()
    until(lambda: client.counts(queue="jobs").consumers, 0)
    assert client.counts(queue="jobs").acked == 1


def test_a_closed_channel_gives_back_everything(connection: kombu.Connection, publish: Any, client: SQClient) -> None:
    for number in range(6):
        publish(number)
    reader = Reader(connection, "jobs", prefetch=4)
    reader.read(2)
    reader.close()
    until(lambda: client.counts(queue="jobs").ready, 6)


def test_an_event_loop_is_woken(connection: kombu.Connection, publish: Any) -> None:
    hub = Hub()
    reader = Reader(connection, "jobs")
    connection.register_with_event_loop(hub)
    for number in range(3):
        publish(number)
    while len(reader.messages) < 3:
        hub.run_once()
    hub.close()


def test_no_message_is_a_timeout(connection: kombu.Connection) -> None:
    Reader(connection, "jobs")
    with pytest.raises(TimeoutError):
        connection.drain_events(timeout=0.01)


def test_a_lost_connection_ends_drain_events() -> None:
    port = free_port()
    with ExitStack() as stack:
        server = stack.enter_context(SQServer(port=port))
        connection = stack.enter_context(kombu.Connection(url(server)))
        reader = Reader(connection, "jobs")
        connection.Producer().publish("a", routing_key="jobs")
        reader.read(1)
        waiting = Call(connection.drain_events)
        server.stop(0)
        with pytest.raises(Unavailable):
            waiting.result()
        assert not connection.connected
        reader.messages[0].ack()  # says so in the log, for it is delivered again
        connection.collect()


def test_a_repeated_publish_enqueues_once(
    connection: kombu.Connection, client: SQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has a message whose confirmation was lost; kombu publishes it again."""
    answers: list[Any] = [Unavailable("the answer was lost")]
    enq = SQClient.enq

    def lossy(self: SQClient, *args: Any, **options: Any) -> int:
        number = enq(self, *args, **options)
        if answers:
            raise answers.pop()
        return number

    monkeypatch.setattr(SQClient, "enq", lossy)
    connection.Producer().publish("a", routing_key="jobs", retry=True)
    assert not answers
    assert client.cnt(queue="jobs") == 1


def test_a_message_that_no_queue_gets_is_an_error(connection: kombu.Connection) -> None:
    exchange = kombu.Exchange("orders", type="direct")
    with pytest.raises(ChannelError, match="no queue is bound to exchange 'orders' by routing key 'x'"):
        connection.Producer(exchange=exchange).publish("a", routing_key="x", retry=True)
    topic = kombu.Exchange("events", type="topic")
    connection.Producer(exchange=topic).publish("a", routing_key="x", retry=True)  # nobody need listen


def test_there_is_no_fanout(connection: kombu.Connection) -> None:
    assert not connection.supports_exchange_type("fanout")


def test_a_prefix_is_part_of_the_names(server: SQServer, client: SQClient) -> None:
    with kombu.Connection(url(server, "/shop")) as connection:
        connection.Producer().publish("a", routing_key="jobs")
        assert connection.channel().queue_declare("jobs", passive=True).message_count == 1
    assert client.cnt(queue="shop.jobs") == 1


def test_a_bad_name_is_refused_in_words(publish: Any) -> None:
    with pytest.raises(ValueError, match="queue: 'a b' is not 1 to 128"):
        publish("a", "a b")


def test_an_absent_server_says_so() -> None:
    with (
        pytest.raises(OperationalError, match="is a server running there"),
        kombu.Connection(f"stiqueue://127.0.0.1:{free_port()}", connect_timeout=0.5) as connection,
    ):
        connection.ensure_connection(max_retries=1, interval_start=0)


def test_options_of_other_brokers_are_named_in_a_warning(server: SQServer, caplog: pytest.LogCaptureFixture) -> None:
    options = {"visibility_timeout": 3600, "max_retries": 3, "consumer": "kombu"}
    with (
        caplog.at_level(logging.WARNING, "stiqueue.celery"),
        kombu.Connection(url(server), transport_options=options) as connection,
    ):
        connection.connect()
    assert [record.message.split(";")[0] for record in caplog.records] == [
        "transport_options: visibility_timeout means nothing here"
    ]


def test_tls_is_what_other_brokers_take() -> None:
    given = {"ca_certs": "ca.pem", "ssl_certfile": "c.pem", "keyfile": "k.pem", "cert_reqs": ssl.CERT_REQUIRED}
    assert tls_of(given) == TLS("ca.pem", "c.pem", "k.pem")
    assert tls_of(True) is True
    with pytest.raises(ValueError, match="always verified"):
        tls_of({"cert_reqs": ssl.CERT_NONE})
    with pytest.raises(ValueError, match="cafile; known are"):
        tls_of({"cafile": "ca.pem"})
    assert stiqueue.adapters.celery.SSLTransport.tls_by_default


def test_a_token_is_the_password(client: SQClient) -> None:
    """A server without tokens ignores it; that it is sent is seen where it must not be sent."""
    with (
        pytest.raises(ValueError, match="token"),
        kombu.Connection("stiqueue://:secret@192.0.2.1:1234") as connection,
    ):
        connection.connect()


def test_nothing_is_left_open(server: SQServer) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for _ in range(3):
            with kombu.Connection(url(server)) as connection:
                connection.Producer().publish("a", routing_key="jobs")
                Reader(connection, "jobs").read(1)
