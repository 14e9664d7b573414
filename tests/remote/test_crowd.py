"""More calls at a time than a server allows on one connection."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator

import pytest

from stiqueue import SQServer

from .conftest import Connect

FLOWS = 150
ROUNDS = 10
LARGE = "x" * 2_000
"""A message that travels alone."""


@pytest.fixture(params=["memory", "file"])
def crowded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SQServer]:
    """A server with the default bound of 100 calls on a connection."""
    data = tmp_path_factory.mktemp("crowd") / "queue.db" if request.param == "file" else None
    with SQServer(port=0, data=data) as server:
        yield server


@pytest.mark.slow
def test_no_call_is_refused(connect: Connect, crowded: SQServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="stiqueue.client")  # on which each try that is repeated is logged
    with connect(crowded.port, timeout=50) as client:
        errors: list[BaseException] = []

        def work(queue: str) -> None:
            try:
                for _ in range(ROUNDS):
                    client.enq(LARGE, queue=queue)
                    assert client.deq(queue=queue) == LARGE.encode()
                client.ack()
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=work, args=(f"q{number}",)) for number in range(FLOWS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        assert [record.getMessage() for record in caplog.records if "again" in record.getMessage()] == []
        assert {counts.ready + counts.leased for counts in client.queues().values()} <= {0}
