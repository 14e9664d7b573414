"""Queues for the tests of your own programs: a server in the process, pytest fixtures, and a clock to move by hand.

With pytest, in a `conftest.py`: ``pytest_plugins = ["stiqueue.testing"]``. Then a test asks for what it needs:

    def test_the_worker_squares(stiqueue_client):
        stiqueue_client.enq("7")
        work(SQClient(port=stiqueue_client.port))
        assert stiqueue_client.peek(queue="results") == b"49"
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stiqueue.engines.local.engine import LocalEngine
from stiqueue.local import LocalSQClient
from stiqueue.sqclient import SQClient
from stiqueue.sqserver import SQServer

try:
    import pytest
except ImportError:  # only the fixtures need it
    if not TYPE_CHECKING:
        pytest = None


@contextmanager
def serving(**options: Any) -> Iterator[SQServer]:
    """Run a server in a thread, on a free port (``server.port``), with messages in memory.

    Args:
        options: those of `SQServer`, such as ``max_attempts=3``, or ``data=path`` for a data file.
    """
    with SQServer(**{"port": 0} | options) as server:
        yield server


class FakeClock:
    """A clock that is moved by hand, and queues in this process that live by it.

    No test has to wait for a delay, a ttl, a retry or a lease with a time limit:

        clock = FakeClock()
        client = clock.client(retry_delay=60)
        client.enq("later", delay=3600)
        assert client.deq(timeout=0) is None
        clock.advance(3600)
        assert client.deq(timeout=0) == b"later"

    A wait for a message is measured by this clock as well. So take with ``timeout=0``: with a longer one, `deq` returns
    when a message comes or when another thread moves the clock.
    """

    def __init__(self, monotonic: float = 1_000.0, wall: float = 1_700_000_000.0) -> None:
        """Begin at these times: `monotonic` in seconds since some moment, `wall` in seconds since 1970."""
        self._monotonic = monotonic
        self._wall = wall
        self._engines: list[LocalEngine] = []

    def monotonic(self) -> float:
        """Return seconds that never jump."""
        return self._monotonic

    def wall(self) -> float:
        """Return seconds since 1970."""
        return self._wall

    def advance(self, seconds: float) -> None:
        """Let time pass, and what is due then happen."""
        self._monotonic += seconds
        self._wall += seconds
        for engine in self._engines:
            engine.tick()

    def jump(self, seconds: float) -> None:
        """Set the wall clock forward or (below 0) back, as a person or NTP does; no time passes."""
        self._wall += seconds

    def client(self, max_attempts: int = 0, share: LocalSQClient | None = None, **options: Any) -> LocalSQClient:
        """Make a client of queues in memory that live by this clock.

        Args:
            max_attempts: deliveries before a message moves to ``<queue>.dead``; 0: no limit.
            share: a client that `client` made: have the same queues, as another consumer.
            options: those of `LocalSQClient`.
        """
        if share is not None:
            return LocalSQClient(engine=share._engine, **options)
        engine = LocalEngine(max_attempts=max_attempts, clock=self)
        engine.start_now()
        self._engines.append(engine)
        return LocalSQClient(engine=engine, **options)

    def close(self) -> None:
        """End the queues that live by this clock, and their threads."""
        for engine in self._engines:
            engine.close_now()
        self._engines.clear()


if pytest is not None:

    @pytest.fixture
    def stiqueue_server() -> Iterator[SQServer]:
        """A server of this test alone; ``stiqueue_server.port`` is where."""
        with serving() as server:
            yield server

    @pytest.fixture
    def stiqueue_client(stiqueue_server: SQServer) -> Iterator[SQClient]:
        """A client of `stiqueue_server`."""
        with SQClient(port=stiqueue_server.port) as client:
            yield client

    @pytest.fixture
    def stiqueue_clock() -> Iterator[FakeClock]:
        """A clock of this test alone, at which its queues stop in the end."""
        clock = FakeClock()
        yield clock
        clock.close()
