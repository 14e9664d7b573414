"""What Prometheus is told, read as Prometheus does."""

from __future__ import annotations

import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.waiting import until
from support.wire import refused

from stiqueue import InvalidRequest, SQClient, SQServer
from stiqueue.server import descriptors, listening
from stiqueue.v1 import queue_pb2 as pb
from stiqueue.v1.queue_pb2_grpc import QueueServiceStub

SECONDS = 20.0
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SQServer]:
    with SQServer(port=0, data=tmp_path / "queue.db", metrics_port=0) as server:
        yield server


def scrape(server: SQServer) -> Samples:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.metrics_port}/metrics", timeout=SECONDS) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    return {(each.name, frozenset(each.labels.items())): each.value for family in families for each in family.samples}


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def test_the_messages_of_each_queue_by_state(server: SQServer, client: SQClient) -> None:
    client.enq_many(list("abc"), queue="mail")
    client.enq("later", queue="mail", delay=1000)
    assert client.deq(timeout=SECONDS, queue="mail") == b"a"
    found = scrape(server)
    states = {state: value(found, "stiqueue_queue_messages", queue="mail", state=state) for state in STATES}
    assert states == {"ready": 2, "leased": 1, "delayed": 1}
    assert value(found, "stiqueue_queue_bytes", queue="mail") == 8
    assert value(found, "stiqueue_queue_consumers", queue="mail") == 1
    assert value(found, "stiqueue_queue_events_total", queue="mail", event="enqueued") == 4
    assert value(found, "stiqueue_queue_oldest_lease_age_seconds", queue="mail") < SECONDS


STATES = ("ready", "leased", "delayed")


def test_ages_grow(server: SQServer, client: SQClient) -> None:
    client.enq("a")
    until(lambda: value(scrape(server), "stiqueue_queue_oldest_ready_age_seconds", queue="default") > 0)


def test_calls_are_counted_by_method_and_code(server: SQServer, client: SQClient) -> None:
    for _ in range(3):
        client.enq("a")
    with pytest.raises(InvalidRequest):
        client.enq("a", priority=256)
    assert client.deq(timeout=0) == b"a"
    client.disconnect()
    until(lambda: value(scrape(server), "stiqueue_calls_total", method="Ack", code="OK"), 1.0)
    found = scrape(server)
    assert value(found, "stiqueue_calls_total", method="Enq", code="OK") == 3
    assert value(found, "stiqueue_call_seconds_count", method="Enq") >= 3
    assert value(found, "stiqueue_call_seconds_bucket", method="Enq", le="+Inf") >= 3
    assert value(found, "stiqueue_call_seconds_count", method="Deq") == 0


def test_every_count_of_calls_begins_with_0(server: SQServer) -> None:
    found = scrape(server)
    for method in ("Enq", "Deq", "Ack", "Peek", "Cnt"):
        assert found["stiqueue_calls_total", frozenset({("method", method), ("code", "INTERNAL")})] == 0


def test_commits_are_timed_and_their_requests_counted(server: SQServer, client: SQClient) -> None:
    for _ in range(3):
        client.enq("a")
    found = scrape(server)
    commits = value(found, "stiqueue_commit_seconds_count")
    assert 1 <= commits <= 3
    assert value(found, "stiqueue_commit_seconds_sum") > 0
    assert value(found, "stiqueue_commit_changes_count") == commits
    assert value(found, "stiqueue_commit_changes_sum") == 3


def test_calls_without_a_token_are_counted(tmp_path: Path) -> None:
    (tmp_path / "tokens").write_text("0123456789abcdef enq\n")
    with (
        SQServer(port=0, metrics_port=0, tokens=str(tmp_path / "tokens")) as server,
        grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel,
    ):
        for _ in range(2):
            with refused(grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"):
                QueueServiceStub(channel).Enq(pb.EnqRequest(bodies=[b"a"]), timeout=SECONDS)
        assert value(scrape(server), "stiqueue_calls_total", method="Enq", code="UNAUTHENTICATED") == 2


@pytest.mark.skipif(descriptors.count_connections(0) is None, reason="the system does not tell of connections")
def test_connections_are_counted_and_how_many_there_may_be(server: SQServer, client: SQClient) -> None:
    assert value(scrape(server), "stiqueue_max_connections") == listening.most_connections(server.settings)
    assert value(scrape(server), "stiqueue_connections") == 0
    client.enq("a")
    assert value(scrape(server), "stiqueue_connections") == 1
    client.disconnect()
    until(lambda: value(scrape(server), "stiqueue_connections"), 0.0)


def test_the_process_is_measured(server: SQServer) -> None:
    assert value(scrape(server), "process_resident_memory_bytes") > 1 << 20


def test_the_port_is_closed_with_the_server(server: SQServer) -> None:
    scrape(server)
    server.stop()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", server.metrics_port or 0), timeout=SECONDS)


def test_a_port_in_use_is_an_error(server: SQServer) -> None:
    with pytest.raises(OSError, match=r"cannot listen on 127.0.0.1:\d+ \(metrics_port\): Address already in use"):
        SQServer(port=0, metrics_port=server.metrics_port).start()


def test_without_the_option_nobody_listens() -> None:
    with SQServer(port=0) as server:
        assert server.metrics_port is None
