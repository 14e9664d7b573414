"""The engines under contract. A test that asks for `bench` or `make_bench` runs on each of them."""

from __future__ import annotations

import asyncio
import hashlib
import inspect
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from support.clock import FakeClock
from support.nats_servers import NatsCluster, NatsServer

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.opening import open_engine

from .bench import PATIENCE, Bench
from .differences import DIFFERENCES, OF_SEVERAL_SERVERS


class MakeBench(Protocol):
    """Makes a bench with options of the engine."""

    def __call__(self, *, bounds: Bounds | None = None, max_attempts: int = 0) -> Bench: ...


def in_memory(clock: FakeClock, bounds: Bounds | None, max_attempts: int, directory: Path) -> LocalEngine:
    return LocalEngine(bounds, max_attempts, clock)


def on_a_file(clock: FakeClock, bounds: Bounds | None, max_attempts: int, directory: Path) -> LocalEngine:
    engine = open_engine(directory / "stiqueue.db", bounds, max_attempts, clock=clock)
    engine.start_now()
    return engine


ENGINES: dict[str, Callable[[FakeClock, Bounds | None, int, Path], LocalEngine]] = {
    "memory": in_memory,
    "durable": on_a_file,
}
"""How to make each engine; the directory is for its files, the same for all engines of one test."""

JETSTREAM = "jetstream"
JETSTREAM_PATIENCE = 3.0
"""Real seconds for what is not expected to come."""


NATS_SERVERS = int(os.environ.get("NATS_SERVERS", "1"))
"""On how many servers each stream is: ``NATS_SERVERS=3 scripts/test tests/contract -k jetstream``."""


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer | NatsCluster]:
    """A NATS server, or a cluster, for all tests; each has streams of its own."""
    directory = tmp_path_factory.mktemp("nats")
    server = NatsServer(directory) if NATS_SERVERS == 1 else NatsCluster(*[directory] * NATS_SERVERS)
    try:
        yield server.start()
    finally:
        server.end()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """The event loop of one test: of its fixtures, its engines and its body."""
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine on its loop."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    loop = pyfuncitem.funcargs["loop"]
    assert isinstance(loop, asyncio.AbstractEventLoop)
    arguments: dict[str, Any] = {
        name: pyfuncitem.funcargs[name] for name in inspect.signature(pyfuncitem.obj).parameters
    }
    loop.run_until_complete(pyfuncitem.obj(**arguments))
    return True


@pytest.fixture(params=[*ENGINES, JETSTREAM])
def make_bench(request: pytest.FixtureRequest, loop: asyncio.AbstractEventLoop, tmp_path: Path) -> Iterator[MakeBench]:
    """Makes benches around new engines, which are closed after the test."""
    made: list[Bench] = []
    if request.param == JETSTREAM:
        if "CI" not in os.environ:
            pytest.importorskip("nats")
        from .remote import RemoteEngine, new_engine  # here, so that the others are tested without NATS as well

        server = request.getfixturevalue("nats_server")
        prefix = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:16]
        differences = DIFFERENCES | (OF_SEVERAL_SERVERS if NATS_SERVERS > 1 else {})
        difference = differences.get(request.function.__name__)
        patience = PATIENCE
        if difference is not None and difference.holds_for(request.node.callspec.params):
            patience = JETSTREAM_PATIENCE
            request.applymarker(pytest.mark.xfail(reason=difference.text, strict=difference.always))

    def make(*, bounds: Bounds | None = None, max_attempts: int = 0) -> Bench:
        clock = FakeClock()
        if request.param == JETSTREAM:
            engine: Any = RemoteEngine(new_engine(server.address, clock, bounds, max_attempts, prefix, NATS_SERVERS))
            bench = Bench(engine, clock, patience)
        else:
            bench = Bench(ENGINES[request.param](clock, bounds, max_attempts, tmp_path), clock, PATIENCE)
        made.append(bench)
        return bench

    yield make
    for bench in made:
        if request.param == JETSTREAM:
            bench.engine.end()
        else:
            loop.run_until_complete(bench.engine.close())


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    """A bench around a new engine without bounds."""
    return make_bench()
