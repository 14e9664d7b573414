"""The server's log in JSON, as a log collector reads it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import until

from stiqueue import SQClient, SQServer, logs
from stiqueue.settings import Settings


@pytest.fixture
def log(tmp_path: Path) -> Iterator[Path]:
    """The file to which a server with these options logs; the logger is as before in the end."""
    logger = logging.getLogger("stiqueue")
    before = logger.level
    path = tmp_path / "server.log"
    logs.configure(Settings(log=str(path), log_format="json", debug=True))
    yield path
    logger.setLevel(before)
    handler = logger.handlers.pop()
    handler.close()


def test_each_line_is_an_object_that_names_queue_and_message(log: Path) -> None:
    with SQServer(port=0) as server, SQClient(port=server.port, queue="mail") as client:
        client.enq("secret" * 100)
        until(lambda: "enq mail" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    (enqueued,) = [line for line in lines if line["message"].startswith("enq mail")]
    assert (enqueued["queue"], enqueued["message_id"], enqueued["level"]) == ("mail", 1, "DEBUG")
    assert len(enqueued["message"]) < 200


def test_an_exception_is_part_of_its_line(log: Path) -> None:
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        logging.getLogger("stiqueue").exception("failed\nin two lines")
    (line,) = log.read_text().splitlines()
    found = json.loads(line)
    assert found["message"] == "failed\nin two lines"
    assert "RuntimeError: a bug" in found["exception"]
