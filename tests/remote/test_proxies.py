"""Servers behind proxies: nginx and HAProxy with the settings of docs/proxies.md, and one that forbids pings."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from support.ports import free_port
from support.services import missing
from support.waiting import python, until

from stiqueue import InvalidRequest, SQClient, SQServer

from .conftest import Connect

PAGE = (Path(__file__).parents[2] / "docs/proxies.md").read_text()
COMMANDS = {"nginx": ["nginx", "-p", ".", "-e", "stderr", "-c"], "haproxy": ["haproxy", "-db", "-f"]}
HOLDER = """
import sys, time
from stiqueue import SQClient
print(SQClient(port=int(sys.argv[1])).deq().decode(), flush=True)
time.sleep(60)
"""


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(params=COMMANDS)
def proxied(request: pytest.FixtureRequest, server: SQServer, tmp_path: Path) -> Iterator[int]:
    """The port of a proxy before `server`, with the settings of the page."""
    name: str = request.param
    if shutil.which(name) is None:
        missing(name)
    (settings,) = re.findall(rf"```{name}\n(.*?)```", PAGE, re.S)
    port = free_port()
    settings = settings.replace("queue.internal:1234", f"127.0.0.1:{server.port}").replace(":8080", f":{port}")
    (tmp_path / "proxy.conf").write_text(settings.replace("0.0.0.0", "127.0.0.1"))
    with subprocess.Popen([*COMMANDS[name], "proxy.conf"], cwd=tmp_path) as process:
        try:
            until(lambda: accepts(port) or process.poll() is not None)
            assert process.poll() is None
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(10)


@pytest.mark.slow
def test_messages_pass_a_proxy(connect: Connect, proxied: int) -> None:
    large = b"x" * (3 << 20)
    with connect(proxied, timeout=20) as client:
        client.enq_many(str(number) for number in range(1_500))
        assert [int(message) for message in client.consume(prefetch=10, timeout=0)] == list(range(1_500))
        client.enq(large)
        message = client.deq(timeout=20)
        assert message == large
        assert message.ack() is True
        for number in range(1_100):  # more than nginx lets through a connection by default
            client.enq(str(number), queue="others")
        assert client.cnt(queue="others") == 1_100


def test_what_a_dead_consumer_held_comes_back_through_a_proxy(proxied: int, client: SQClient) -> None:
    client.enq("a")
    with python(HOLDER, proxied) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "a\n"
        assert client.cnt() == 0
        holder.kill()
        until(client.cnt, 1)


class Strict(grpc.GenericRpcHandler):
    """Passes calls on to a server, without a look at them."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def service(self, details: Any) -> Any:
        pass_on = self._channel.stream_stream(details.method)

        def handle(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
            call = pass_on(requests)
            context.add_callback(call.cancel)
            yield from call

        return grpc.stream_stream_rpc_method_handler(handle)


@contextmanager
def strict_proxy(port: int) -> Iterator[int]:
    """Run a proxy made with gRPC, whose default is to cut clients that ping more often than every 5 minutes."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel, ThreadPoolExecutor(20) as pool:
        proxy = grpc.server(pool, handlers=[Strict(channel)])
        listening = proxy.add_insecure_port("127.0.0.1:0")
        proxy.start()
        yield listening
        proxy.stop(0).wait()


@pytest.mark.slow
def test_a_client_that_does_not_ping_keeps_its_lease_behind_a_proxy_that_forbids_pings(
    connect: Connect, server: SQServer, client: SQClient
) -> None:
    client.enq_many(["a", "b"])
    with strict_proxy(server.port) as port:
        quiet, pinging = connect(port, keepalive=None), connect(port, keepalive=1)
        assert quiet.deq() == b"a"
        assert pinging.deq() == b"b"
        until(client.cnt, 1)  # cut after the third ping that it did not like
        assert client.peek() == b"b"
        assert quiet.ack() is True
        quiet.close()
        pinging.close()


@pytest.mark.parametrize("keepalive", [0, 0.5, -1, 1e9, float("nan"), "5"])
def test_a_keepalive_out_of_range_is_refused(connect: Connect, keepalive: Any) -> None:
    with pytest.raises(InvalidRequest, match="keepalive"):
        connect(1234, keepalive=keepalive)
