"""Places where a queue lives: a test that asks for `place` or `client` runs on a server and in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from support.bridge import BridgedClient, EventLoop

from stiqueue import LocalSQClient, SQClient, SQServer
from stiqueue.client.base import BaseClient
from stiqueue.engines.local.engine import LocalEngine


class Place:
    """Where queues live, and clients of them."""

    def __init__(self, engine: LocalEngine, port: int | None, loop: EventLoop | None = None) -> None:
        self.engine = engine
        self.port = port
        self.loop = loop
        """Where clients of asyncio live, if that is what clients are here."""
        self._clients: list[BaseClient] = []

    def client(self, **options: Any) -> BaseClient:
        """Make a client; it is closed after the test."""
        client: Any
        if self.loop is not None:
            client = BridgedClient(self.loop, port=self.port, **options)
        elif self.port is None:
            client = LocalSQClient(engine=self.engine, **options)
        else:
            client = SQClient(port=self.port, **options)
        self._clients.append(client)
        return client  # type: ignore[no-any-return]

    def close(self) -> None:
        for client in self._clients:
            client.close()


def on_a_server(**options: Any) -> Iterator[Place]:
    with SQServer(port=0, **options) as server:
        assert isinstance(server.engine, LocalEngine)
        place = Place(server.engine, server.port)
        yield place
        place.close()


def on_a_server_with_a_file(**options: Any) -> Iterator[Place]:
    with TemporaryDirectory() as directory:
        yield from on_a_server(data=f"{directory}/stiqueue.db", **options)


def in_this_process(**options: Any) -> Iterator[Place]:
    server = SQServer(**options)  # never started: it knows how options become an engine
    assert isinstance(server.engine, LocalEngine)
    place = Place(server.engine, None)
    yield place
    place.close()
    server.engine.close_now()


def on_a_server_by_asyncio(**options: Any) -> Iterator[Place]:
    loop = EventLoop()
    try:
        with SQServer(port=0, **options) as server:
            assert isinstance(server.engine, LocalEngine)
            place = Place(server.engine, server.port, loop)
            yield place
            place.close()
    finally:
        loop.close()


PLACES: dict[str, Callable[..., Iterator[Place]]] = {
    "server": on_a_server,
    "durable": on_a_server_with_a_file,
    "local": in_this_process,
    "asyncio": on_a_server_by_asyncio,
}


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """A place with default options, or with those of the mark `options`."""
    mark = request.node.get_closest_marker("options")
    yield from PLACES[request.param](**(mark.kwargs if mark else {}))


@pytest.fixture
def client(place: Place) -> BaseClient:
    """A client of that place."""
    return place.client()


@pytest.fixture
def other(place: Place) -> BaseClient:
    """Another client, to see what the first has done."""
    return place.client()
