"""A real server that lives by a clock of the test, and runners of a schedule that have clocks of their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from stiqueue import SQClient, SQServer
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.testing import FakeClock
from tests.support.ports import free_port

BEGIN = 1_767_225_600.0
"""2026-01-01T00:00:00Z."""


class ClockedServer(SQServer):
    """A server whose messages and request ids age by a clock of the test."""

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        super().__init__(port=free_port())

    def make_engine(self) -> LocalEngine:
        return LocalEngine(clock=self._clock)


@pytest.fixture
def clock() -> FakeClock:
    """The clock of the server, and the right time."""
    return FakeClock(wall=BEGIN)


@pytest.fixture
def clocked(clock: FakeClock) -> Iterator[ClockedServer]:
    """A server that lives by `clock`."""
    with ClockedServer(clock) as server:
        yield server


@pytest.fixture
def client(clocked: ClockedServer) -> Iterator[SQClient]:
    """A client of `clocked`."""
    with SQClient(port=clocked.port, timeout=10.0) as client:
        yield client
