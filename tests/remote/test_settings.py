"""Settings of queues through a real server: every client's methods, bad input, and what a killed server kept."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from faults.processes import ServerProcess
from google.protobuf.duration_pb2 import Duration
from support.waiting import Call
from support.wire import refused

from stiqueue import AsyncSQClient, LocalSQClient, QueueSettings, SQClient, SQServer
from stiqueue.client.base import BaseClient
from stiqueue.errors import InvalidRequest, NotSupported, QueueFull
from stiqueue.v1 import admin_pb2 as pb
from stiqueue.v1.admin_pb2_grpc import AdminServiceStub

INVALID = grpc.StatusCode.INVALID_ARGUMENT
SECONDS = 20.0


@pytest.fixture(params=["server", "local"])
def any_client(request: pytest.FixtureRequest) -> Iterator[BaseClient]:
    if request.param == "local":
        with LocalSQClient() as local:
            yield local
    else:
        yield request.getfixturevalue("client")


@pytest.fixture
def admin(channel: grpc.Channel) -> AdminServiceStub:
    return AdminServiceStub(channel)


def test_a_deq_waits_until_the_queue_is_resumed(any_client: BaseClient) -> None:
    any_client.pause()
    any_client.enq("a")
    assert any_client.deq(timeout=0) is None
    assert any_client.counts().paused
    waiting = Call(any_client.deq)
    assert any_client.resume() is True
    assert waiting.result() == b"a"


def test_a_pause_ends_by_itself(any_client: BaseClient) -> None:
    any_client.pause(60)
    any_client.enq("a")
    assert any_client.deq(timeout=0) is None
    assert 0 < any_client.counts().paused_ms <= 60_000
    any_client.pause(0.2)
    assert any_client.deq(timeout=SECONDS) == b"a"


def test_resume_tells_whether_a_pattern_pauses_the_queue_still(any_client: BaseClient) -> None:
    any_client.pause(queue="m*")
    any_client.pause(queue="mail")
    assert any_client.resume(queue="mail") is False
    assert any_client.resume(queue="m*") is True
    assert any_client.resume(queue="mail") is True
    assert any_client.all_settings().settings == []


def test_settings_are_set_shown_and_reset(any_client: BaseClient) -> None:
    assert any_client.configure(max_attempts=5, ttl=60) == QueueSettings("default", max_attempts=5, ttl=60.0)
    assert any_client.configure(queue="d*", max_attempts=9, max_messages=1).queue == "d*"
    found = any_client.settings()
    assert (found.queue, found.max_attempts, found.ttl, found.max_messages) == ("default", 5, 60.0, 1)
    assert (found.paused, found.ack_timeout, found.dead_letter_queue) == (False, 0.0, "")
    any_client.enq("a")
    with pytest.raises(QueueFull, match="max_messages is 1"):
        any_client.enq("b")
    assert any_client.configure(reset="ttl") == QueueSettings("default", max_attempts=5)
    assert [each.queue for each in any_client.all_settings().settings] == ["d*", "default"]
    assert not any_client.configure(reset=["*"])
    assert any_client.settings().max_attempts == 9


def test_max_leased_holds_for_all_clients_together(server: SQServer, client: SQClient) -> None:
    client.configure(max_leased=1)
    client.enq_many(["a", "b"])
    with SQClient(port=server.port) as other:
        assert other.deq() == b"a"
        assert client.deq(timeout=0) is None
        waiting = Call(client.deq)
        other.ack()
        assert waiting.result() == b"b"


def test_a_lease_ends_after_the_ack_timeout_of_the_queue(server: SQServer, client: SQClient) -> None:
    client.configure(ack_timeout=0.05)
    client.enq("a")
    with SQClient(port=server.port) as other:
        message = other.deq()
        assert client.deq(timeout=SECONDS) == b"a"
        assert message.ack() is False


def test_tasks_have_the_same_methods(server: SQServer) -> None:
    async def work() -> None:
        async with AsyncSQClient(port=server.port) as client:
            await client.pause(60)
            assert (await client.settings()).paused is True
            assert await client.resume() is True
            await client.configure(queue="a*", max_leased=3)
            (settings,) = (await client.all_settings()).settings
            assert settings == QueueSettings("a*", max_leased=3)

    asyncio.run(work())


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"queue": "a b*"}, "BAD_QUEUE_NAME"),
        ({"queue": "a b"}, "BAD_QUEUE_NAME"),
        ({"max_leased": -1}, "BAD_SETTING"),
        ({"max_leased": "5"}, "BAD_SETTING"),
        ({"max_attempts": 1 << 40}, "BAD_SETTING"),
        ({"max_bytes": 1.5}, "BAD_SETTING"),
        ({"paused": "yes"}, "BAD_SETTING"),
        ({"ttl": -1.0}, "BAD_DURATION"),
        ({"ack_timeout": 0.001}, "BAD_DURATION"),
        ({"ttl": "60"}, "BAD_DURATION"),
        ({"dead_letter_queue": "b"}, "BAD_SETTING"),
        ({"dead_letter_queue": 5}, "BAD_SETTING"),
        ({"reset": ["max_lease"]}, "BAD_SETTING"),
        ({"reset": [5]}, "BAD_SETTING"),
        ({"reset": 5}, "BAD_OPTION"),
        ({"ttl": 1.0, "reset": "ttl"}, "BAD_SETTING"),
    ],
)
def test_what_is_wrong_is_refused_and_changes_nothing(
    any_client: BaseClient, asked: dict[str, Any], reason: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        any_client.configure(**{"max_messages": 7, **asked})
    assert caught.value.reason == reason
    assert any_client.all_settings().settings == []


@pytest.mark.parametrize("seconds", [0, -1, 367 * 86_400, "60"])
def test_a_pause_has_an_end_or_none(any_client: BaseClient, seconds: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^resume_after: ") as caught:
        any_client.pause(seconds)
    assert caught.value.reason == "BAD_DURATION"
    assert not any_client.counts().paused


@pytest.mark.parametrize(
    ("settings", "reset", "reason"),
    [
        ({"queue": "a/b"}, [], "BAD_QUEUE_NAME"),
        ({"max_attempts": -1}, [], "BAD_SETTING"),
        ({"max_messages": -(2**63)}, [], "BAD_SETTING"),
        ({"max_messages": 2**63 - 1}, [], "BAD_SETTING"),
        ({"resume_after": Duration(seconds=1)}, [], "BAD_SETTING"),
        ({"paused": True, "resume_after": Duration()}, [], "BAD_DURATION"),
        ({"ttl": Duration(nanos=-1)}, [], "BAD_DURATION"),
        ({"ttl": Duration(seconds=2**62)}, [], "BAD_DURATION"),
        ({"ack_timeout": Duration(seconds=604_801)}, [], "BAD_DURATION"),
        ({"dead_letter_queue": "x" * 1000 + ".dead"}, [], "BAD_QUEUE_NAME"),
        ({}, [""], "BAD_SETTING"),
        ({}, ["queue"], "BAD_SETTING"),
        ({}, ["x" * 10_000], "BAD_SETTING"),
    ],
)
def test_what_other_clients_may_say(
    client: SQClient, admin: AdminServiceStub, settings: dict[str, Any], reset: list[str], reason: str
) -> None:
    request = pb.ConfigureRequest(settings=pb.QueueSettings(**settings), reset=reset)
    with refused(INVALID, reason) as refusal:
        admin.Configure(request, timeout=SECONDS)
    assert len(refusal.text) < 1000
    assert client.all_settings().settings == []


def test_settings_of_a_pattern_are_asked_for_by_no_queue(admin: AdminServiceStub) -> None:
    with refused(INVALID, "BAD_QUEUE_NAME"):
        admin.Settings(pb.SettingsRequest(queue="a*"), timeout=SECONDS)
    with refused(INVALID, "BAD_QUEUE_NAME"):
        admin.Settings(pb.SettingsRequest(queue="a b"), timeout=SECONDS)


def test_an_empty_request_changes_nothing_and_means_the_default_queue(admin: AdminServiceStub) -> None:
    assert admin.Configure(pb.ConfigureRequest(), timeout=SECONDS).settings == pb.QueueSettings(queue="default")


def test_a_change_is_logged_with_who_and_what(client: SQClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "stiqueue"):
        client.configure(queue="m*", max_leased=3, paused=True, reset=["ttl"])
        client.configure()
    (line,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("settings of")]
    assert line.startswith("settings of m*: paused yes, max_leased 3, reset ttl (by ipv4:127.0.0.1:")


def test_settings_survive_a_kill(tmp_path: Path) -> None:
    server = ServerProcess(tmp_path, ["--data", "a.db"])
    try:
        server.start()
        with SQClient(port=server.port) as client:
            client.enq("a")
            client.pause(3600)
            client.configure(queue="m*", max_leased=3)
            client.configure(queue="gone", max_leased=3)
            client.configure(queue="gone", reset="*")
        assert server.process is not None
        server.process.kill()
        server.wait()
        server.start()
        with SQClient(port=server.port) as client:
            assert client.deq(timeout=0) is None
            paused, mail = client.all_settings().settings
            assert (paused.queue, paused.paused) == ("default", True)
            assert paused.resume_after is not None
            assert 3500 < paused.resume_after < 3600
            assert mail == QueueSettings("m*", max_leased=3)
            assert client.resume()
            assert client.deq(timeout=0) == b"a"
    finally:
        server.end()


def test_a_server_without_the_service_says_so() -> None:
    server = grpc.server(_Threads())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with SQClient(port=port) as client, pytest.raises(NotSupported):
            client.pause()
    finally:
        server.stop(0).wait()


def _Threads() -> Any:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(2)
