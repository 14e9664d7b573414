"""The server's log in JSON, as a log collector reads it."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.waiting import until

from stiqueue import ServerError, SQClient, SQServer
from stiqueue.server import logs
from stiqueue.settings import Settings

SECONDS = 20.0


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


FIELDS = ("queue", "consumer", "message_id")


def told(log: Path) -> list[tuple[str, object, object, object]]:
    """Return the text, the queue, the consumer and the message id of each line about messages."""
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [(line["message"], *map(line.get, FIELDS)) for line in lines if "queue" in line]


def test_each_line_names_queue_consumer_and_message(log: Path) -> None:
    with SQServer(port=0) as server:
        with SQClient(port=server.port, queue="mail", consumer="me", auto_ack=False) as client:
            client.enq_many(list("abc"))
            for message in client.consume(timeout=0):
                {b"a": message.ack, b"b": lambda m=message: m.dead_letter("no"), b"c": lambda: None}[bytes(message)]()
                if message == b"c":
                    message.extend(60)
                    break
        until(lambda: "left" in log.read_text())
    assert told(log) == [
        *[(f"enq mail #{n} b'{body}' (1 bytes)", "mail", None, n) for n, body in enumerate("abc", 1)],
        ("consumer 'me' of mail: came", "mail", "me", None),
        ("deq mail #1 b'a' (1 bytes)", "mail", "me", 1),
        ("ack mail #1", "mail", "me", 1),
        ("deq mail #2 b'b' (1 bytes)", "mail", "me", 2),
        ("dead_letter mail #2", "mail", "me", 2),
        ("deq mail #3 b'c' (1 bytes)", "mail", "me", 3),
        ("extend mail #3", "mail", "me", 3),
        ("requeue mail #3", "mail", "me", 3),
        ("consumer 'me' of mail: left", "mail", "me", None),
    ]


def test_an_ack_that_is_too_late_says_so(log: Path) -> None:
    with SQServer(port=0) as server, SQClient(port=server.port, consumer="slow", auto_ack=False) as client:
        client.enq("a")
        client.ack_timeout = 0.1
        messages = client.consume()
        message = next(messages)
        until(lambda: client.counts().requeued > 0)
        assert not message.ack()
        until(lambda: ("ack default #1: too late", "default", "slow", 1) in told(log))
        client.disconnect()
        until(lambda: client.counts().consumers, 0)
        assert not message.ack()
        until(lambda: "ack of a lease that is not known: too late" in log.read_text())


def test_a_defect_names_the_queue(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with SQServer(port=0) as server, SQClient(port=server.port, queue="mail") as client:
        monkeypatch.setattr(server.engine, "enq", fail)
        with pytest.raises(ServerError):
            client.enq("a")
    (line,) = [json.loads(line) for line in log.read_text().splitlines() if "a defect in Enq" in line]
    assert (line["level"], line["queue"]) == ("ERROR", "mail")


def test_an_exception_is_part_of_its_line(log: Path) -> None:
    try:
        raise RuntimeError("a bug")
    except RuntimeError:
        logging.getLogger("stiqueue").exception("failed\nin two lines")
    (line,) = log.read_text().splitlines()
    found = json.loads(line)
    assert found["message"] == "failed\nin two lines"
    assert "RuntimeError: a bug" in found["exception"]


# -- the file itself --------------------------------------------------------------------------------------------------


@pytest.fixture
def lax_umask() -> Iterator[None]:
    """New files are readable for all, unless their program says otherwise."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.mark.usefixtures("lax_umask")
def test_only_its_owner_reads_a_log_also_after_it_was_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With --debug the log has the beginnings of messages."""
    monkeypatch.setattr(logs, "FILE_BYTES", 100)
    for number in range(5):
        logger = configured(tmp_path / "server.log")
        logger.info("%d", number)
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files][:2] == ["server.log", "server.log.1"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


@pytest.mark.usefixtures("lax_umask")
def test_a_log_that_is_there_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "server.log").touch(0o640)
    configured(tmp_path / "server.log")
    assert (tmp_path / "server.log").stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_to_a_log_stays_when_it_is_rotated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "FILE_BYTES", 100)
    (tmp_path / "disk").mkdir()
    link, real = tmp_path / "server.log", tmp_path / "disk" / "real.log"
    link.symlink_to(real)  # which is not there yet
    for _ in range(3):
        configured(link)
    assert link.is_symlink()
    assert real.read_text()
    assert real.with_name("real.log.1").exists()


def test_a_log_may_be_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    configured(tmp_path / "pipe")
    assert b"a line" in os.read(reader, 1_000)
    os.close(reader)


def configured(path: Path) -> logging.Logger:
    """Set up logging to `path` as a server does, write a line, and undo it."""
    logger = logs.configure(Settings(log=str(path)))
    logger.info("a line of more than the hundred bytes after which these tests rotate a log, or nearly as many")
    logger.handlers.pop().close()
    logger.setLevel(logging.NOTSET)
    return logger
