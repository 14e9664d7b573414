"""The right to change settings of queues."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from stiqueue import SQClient, SQServer
from stiqueue.errors import AccessDenied, Unauthenticated

ADMIN, MAIL, WORKER = "admin-token-0123456789", "mail-token-0123456789", "worker-0123456789"
FILE = f"""
{ADMIN}     admin
{MAIL}      admin           mail.*,m?
{WORKER}    enq,deq,peek
"""


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[SQServer]:
    file = tmp_path / "tokens"
    file.touch(0o600)
    file.write_text(FILE)
    with SQServer(port=0, tokens=str(file)) as server:
        yield server


def test_who_may_enqueue_and_dequeue_may_not_change_settings(guarded: SQServer) -> None:
    with SQClient(port=guarded.port, token=WORKER) as worker:
        for call in (worker.pause, worker.resume, worker.configure, worker.settings, worker.all_settings):
            with pytest.raises(AccessDenied, match="no right to admin"):
                call()
    with SQClient(port=guarded.port, token=ADMIN) as admin:
        assert admin.all_settings().settings == []
        admin.pause()
        with SQClient(port=guarded.port, token=WORKER) as worker:
            assert worker.counts().paused


def test_without_a_token_nobody_does(guarded: SQServer) -> None:
    with SQClient(port=guarded.port) as client, pytest.raises(Unauthenticated):
        client.pause()


@pytest.mark.parametrize("queue", ["other", "*", "m*", "mail*", "ma*", "m"])
def test_an_admin_of_some_queues_may_not_change_others(guarded: SQServer, queue: str) -> None:
    with SQClient(port=guarded.port, token=MAIL) as client, pytest.raises(AccessDenied, match="no right to admin"):
        client.configure(queue=queue, max_leased=1)


@pytest.mark.parametrize("queue", ["mail.new", "mail.*", "mail.n*", "mx"])
def test_but_his_own(guarded: SQServer, queue: str) -> None:
    with SQClient(port=guarded.port, token=MAIL) as client:
        assert client.configure(queue=queue, max_leased=1).max_leased == 1
        with pytest.raises(AccessDenied):
            client.all_settings()


def test_the_log_names_the_token_and_does_not_show_it(guarded: SQServer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "stiqueue"), SQClient(port=guarded.port, token=ADMIN) as client:
        client.pause()
    (line,) = [each.getMessage() for each in caplog.records if each.getMessage().startswith("settings of")]
    assert ", token " in line
    assert ADMIN not in line
