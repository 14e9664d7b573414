"""Clients that nobody closed: the garbage collector frees their connections and gives back their leases."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import stat
from collections.abc import Iterator, Sized
from pathlib import Path
from typing import Any

import pytest
from support.waiting import Call, run_python, soon, until

from stiqueue import AsyncSQClient, LocalSQClient, Message, SQClient, SQServer, StoreInUse

CLIENTS = 120


def connections_to(port: int) -> int:
    """Return how many sockets of this process are connected to `port`."""
    peers = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(descriptor)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(descriptor))) as probe:
                peers += probe.getpeername()[1] == port
        except (OSError, IndexError):
            continue
    return peers


def drop(things: list[Any]) -> None:
    """Let go of all of them."""
    things.clear()
    gc.collect()


@pytest.mark.slow
def test_dropped_clients_leave_no_connection(server: SQServer) -> None:
    clients = [SQClient(port=server.port) for _ in range(CLIENTS)]
    assert {client.cnt() for client in clients} == {0}
    assert connections_to(server.port) == CLIENTS
    with pytest.warns(ResourceWarning, match=f"unclosed client of 127.0.0.1:{server.port}") as told:
        drop(clients)
    assert len(told) == CLIENTS
    until(lambda: connections_to(server.port), 0)


@pytest.mark.slow
def test_dropped_clients_of_tasks_leave_no_connection(server: SQServer) -> None:
    async def use() -> None:
        clients = [AsyncSQClient(port=server.port) for _ in range(CLIENTS)]
        assert [await client.cnt() for client in clients] == [0] * CLIENTS
        with pytest.warns(ResourceWarning, match="unclosed client") as told:
            drop(clients)
        assert len(told) == CLIENTS

        async def left() -> int:
            gc.collect()  # gRPC 1.71 leaves a call that has ended in a cycle
            return connections_to(server.port)

        await soon(left, 0)

    asyncio.run(use())


def test_a_dropped_client_gives_back_what_it_holds(server: SQServer, client: SQClient) -> None:
    client.enq_many(["a", "b", "c"])

    def take() -> Iterator[Message]:
        dropped = SQClient(port=server.port)
        assert dropped.deq() == b"a"
        messages = dropped.consume(prefetch=2)
        assert next(messages) == b"b"
        return messages

    kept = [take()]
    gc.collect()
    assert client.counts().leased == 3  # the loop is still there, and its client with it
    with pytest.warns(ResourceWarning, match="unclosed client"):
        drop(kept)
    until(client.cnt, 3)


def test_a_dropped_client_of_a_task_gives_back_what_it_holds(server: SQServer, client: SQClient) -> None:
    client.enq("a")

    async def take() -> None:
        dropped = AsyncSQClient(port=server.port)
        assert await dropped.deq() == b"a"

    async def use() -> None:
        await take()  # the task that took it goes on
        with pytest.warns(ResourceWarning, match="unclosed client"):
            drop([])

        async def ready() -> int:
            return client.cnt()

        await soon(ready, 1)

    asyncio.run(use())


def test_a_message_keeps_its_client(server: SQServer, client: SQClient) -> None:
    client.enq("a")
    kept: list[Any] = [SQClient(port=server.port, auto_ack=False).deq()]
    gc.collect()
    assert client.counts().leased == 1
    assert kept[0].ack() is True
    with pytest.warns(ResourceWarning, match="unclosed client"):
        drop(kept)
    assert client.cnt() == 0


def test_a_waiting_thread_keeps_its_client(server: SQServer, client: SQClient) -> None:
    waiting = [Call(SQClient(port=server.port).deq)]
    until(lambda: client.counts().consumers, 1)
    gc.collect()

    def end(warned: Sized) -> None:
        client.enq("a")
        assert waiting[0].result() == b"a"
        drop(waiting)
        until(lambda: len(warned), 1)  # here, or in the thread if that ends later

    with pytest.warns(ResourceWarning, match="unclosed client") as warned:
        end(warned)


def test_a_client_that_was_closed_or_never_used_is_dropped_without_a_word(server: SQServer) -> None:
    for use in (SQClient.cnt, SQClient.disconnect, SQClient.close):
        with SQClient(port=server.port) as client:
            use(client)
    SQClient(port=server.port)
    client = SQClient(port=server.port)
    client.cnt()
    client.disconnect()
    del client
    gc.collect()


DROPPED_IN_A_CHILD = """
import gc, os, sys, warnings
from stiqueue import SQClient
client = SQClient(port=int(sys.argv[1]))
client.enq("a")
message = client.deq()
child = os.fork()
if not child:
    warnings.simplefilter("error")
    del client, message
    gc.collect()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert message.ack() is True
client.close()
"""


def test_a_child_that_drops_a_client_leaves_its_parent_alone(server: SQServer) -> None:
    ended = run_python(DROPPED_IN_A_CHILD, server.port)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_program_that_ends_is_not_warned_of_its_client(server: SQServer) -> None:
    program = "import sys, warnings; warnings.simplefilter('always'); from stiqueue import SQClient\n"
    ended = run_python(program + "client = SQClient(port=int(sys.argv[1])); client.cnt()", server.port)
    assert (ended.returncode, ended.stderr) == (0, "")


def test_a_dropped_local_client_frees_its_data_file(tmp_path: Path) -> None:
    data = tmp_path / "dropped.db"
    clients = [LocalSQClient(data)]
    clients[0].enq("a")
    with pytest.warns(ResourceWarning, match="unclosed client of .*dropped.db"):
        drop(clients)

    def content() -> bytes:
        try:
            with LocalSQClient(data) as client:
                return client.peek()
        except StoreInUse:
            return b""

    until(content, b"a")


def test_a_dropped_local_client_gives_back_what_it_holds() -> None:
    with LocalSQClient() as owner:
        owner.enq("a")
        others = [LocalSQClient(engine=owner._engine)]
        assert others[0].deq() == b"a"
        drop(others)
        until(owner.cnt, 1)
