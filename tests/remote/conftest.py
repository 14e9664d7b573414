"""Clients of both kinds under the same names, so that each test is run for either."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.bridge import BridgedClient, EventLoop

from stiqueue import SQClient

Connect = Callable[..., Any]
"""Makes the client that is tested: ``connect(port, timeout=...)``."""


@pytest.fixture(params=["SQClient", "AsyncSQClient"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which client is tested."""
    name: str = request.param
    return name


@pytest.fixture
def connect(kind: str) -> Iterator[Connect]:
    """Return a function that makes a client of the kind that is tested; it is closed after the test."""
    clients: list[Any] = []
    loop = EventLoop() if kind == "AsyncSQClient" else None

    def make(port: int, **options: Any) -> Any:
        clients.append(SQClient(port=port, **options) if loop is None else BridgedClient(loop, port=port, **options))
        return clients[-1]

    yield make
    for client in clients:
        client.close()
    if loop is not None:
        loop.close()
