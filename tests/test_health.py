"""The health service, as orchestrators and load balancers ask it, and ``python -m stiqueue.health``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from security.conftest import Authority
from support.waiting import Call, until

from stiqueue import SQServer
from stiqueue.health import is_serving

SECONDS = 20.0
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
NAMES = ["", "stiqueue.v1.QueueService"]


@pytest.fixture
def health(channel: grpc.Channel) -> health_pb2_grpc.HealthStub:
    return health_pb2_grpc.HealthStub(channel)


@pytest.mark.parametrize("name", NAMES)
def test_the_server_and_its_service_are_serving(health: health_pb2_grpc.HealthStub, name: str) -> None:
    assert health.Check(health_pb2.HealthCheckRequest(service=name), timeout=SECONDS).status == SERVING


def test_an_unknown_service_is_not_found(health: health_pb2_grpc.HealthStub) -> None:
    with pytest.raises(grpc.RpcError) as failed:
        health.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=SECONDS)
    assert failed.value.code() is grpc.StatusCode.NOT_FOUND


def test_200_rounds_of_watching_and_leaving_hang_nothing(health: health_pb2_grpc.HealthStub) -> None:
    request = health_pb2.HealthCheckRequest()
    for _ in range(200):
        calls = [health.Watch(request, timeout=SECONDS) for _ in range(5)]
        assert [call.next().status for call in calls[:3]] == [SERVING] * 3
        for call in calls:
            call.cancel()
    assert health.Check(request, timeout=SECONDS).status == SERVING


def test_a_server_that_stops_tells_its_watchers(server: SQServer, health: health_pb2_grpc.HealthStub) -> None:
    call: Any = health.Watch(health_pb2.HealthCheckRequest(), timeout=SECONDS)
    assert call.next().status == SERVING
    stopping = Call(server.stop)
    assert call.next().status == NOT_SERVING
    call.cancel()
    stopping.result()


def test_asking_a_server_that_is_there_and_one_that_is_not(server: SQServer) -> None:
    assert is_serving("127.0.0.1", server.port)
    server.stop()
    until(lambda: is_serving("127.0.0.1", server.port, timeout=0.5), False)


def ask(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-m", "stiqueue.health", *arguments],
        capture_output=True,
        text=True,
        timeout=SECONDS * 2,
        env={**os.environ, **environment},
        check=False,
    )


def test_the_command_ends_with_0_when_the_server_is_serving(server: SQServer) -> None:
    for done in ask("--port", str(server.port)), ask(STIQUEUE_PORT=str(server.port)):
        assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")


def test_the_command_ends_with_1_when_it_is_not(server: SQServer) -> None:
    server.stop()
    done = ask("--port", str(server.port))
    assert (done.returncode, done.stdout, done.stderr) == (1, "NOT SERVING\n", "")


def test_the_command_refuses_a_port_that_is_none() -> None:
    done = ask("--port=99999")
    assert (done.returncode, done.stdout) == (2, "")
    assert "port: 99999 is not within 1 to 65535" in done.stderr


@pytest.mark.parametrize("name", ["localhost", "queue.example.com", "*.example.com", "192.0.2.1"])
def test_in_the_environment_of_a_server_with_tls_any_certificate_will_do(tmp_path: Path, name: str) -> None:
    certificate, key = Authority(tmp_path / "authority").sign("server", name)
    with SQServer(port=0, tls_cert=certificate, tls_key=key) as server:
        port = str(server.port)
        done = ask(STIQUEUE_TLS_CERT=certificate, STIQUEUE_PORT=port)
        assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")
    assert ask(STIQUEUE_TLS_CERT=certificate, STIQUEUE_PORT=port).returncode == 1


def test_a_server_that_demands_certificates_is_shown_its_own(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    certificate, key = authority.sign("server")
    with SQServer(port=0, tls_cert=certificate, tls_key=key, tls_client_ca=authority.path) as server:
        done = ask(
            STIQUEUE_PORT=str(server.port),
            STIQUEUE_TLS_CERT=certificate,
            STIQUEUE_TLS_KEY=key,
            STIQUEUE_TLS_CLIENT_CA=authority.path,
        )
        assert (done.returncode, done.stdout, done.stderr) == (0, "SERVING\n", "")


def test_a_plain_server_is_not_taken_for_one_with_tls(server: SQServer) -> None:
    assert ask(STIQUEUE_PORT=str(server.port), STIQUEUE_TLS_CERT="any").returncode == 1
