"""What docs/migrating.md says of version 2."""

from __future__ import annotations

import logging
import re
import socket
from pathlib import Path
from typing import Any

import pytest

import stiqueue
from stiqueue import InvalidRequest, Message, SQClient, SQServer, Unavailable

ROOT = Path(__file__).parents[1]
MOST_BYTES = (4 << 20) - (16 << 10)
PATIENCE = 60.0


def test_the_program_that_needs_no_change(
    server: SQServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/migrating.md").read_text(), re.DOTALL)
    assert "port=1234" in program
    exec(program.replace("port=1234", f"port={server.port}"), variables := {"__name__": "__main__"})
    variables["client"].close()
    assert capsys.readouterr().out == "b'A,B'\nA\n"


def test_cnt_is_an_int_and_peek_joins_by_any_text(client: SQClient) -> None:
    client.enq_many(["A", "B"])
    assert client.cnt() == 2
    assert isinstance(client.cnt(), int)
    assert client.peek() == b"A,B"
    assert client.peek(sep=" and ") == b"A and B"


def test_deq_returns_bytes_with_more(client: SQClient) -> None:
    client.enq("A")
    message = client.deq(timeout=PATIENCE)
    assert isinstance(message, bytes)
    assert isinstance(message, Message)
    assert (message, message.decode(), message.attempt) == (b"A", "A", 1)


def test_empty_binary_and_large_messages_arrive_whole(client: SQClient) -> None:
    bodies = [b"", b"\xff\xfe", bytes(MOST_BYTES)]
    for body in bodies:
        client.enq(body)
    assert client.peek(2) == b",\xff\xfe"
    for body in bodies:
        assert client.deq(timeout=PATIENCE) == body
    assert client.deq(timeout=0) is None


@pytest.mark.parametrize("size", [MOST_BYTES + 1, 10_000_000])
def test_a_message_above_the_limit_is_refused(client: SQClient, size: int) -> None:
    with pytest.raises(InvalidRequest) as refused:
        client.enq(bytes(size))
    assert refused.value.reason == "MESSAGE_TOO_LARGE"
    assert client.cnt() == 0


def test_a_connection_that_says_nothing_stops_nobody(server: SQServer, client: SQClient) -> None:
    with socket.create_connection(("127.0.0.1", server.port)):
        assert client.enq("A") == 1


def test_a_server_that_stays_away_is_unavailable() -> None:
    with socket.socket() as listener:  # bound, so that nobody else takes the port, and not listening
        listener.bind(("127.0.0.1", 0))
        with SQClient(port=listener.getsockname()[1], timeout=0.3) as client, pytest.raises(Unavailable):
            client.enq("A")


def test_disconnect_acks_and_the_client_goes_on(client: SQClient) -> None:
    client.enq_many(["A", "B"])
    client.disconnect()
    assert client.deq(timeout=PATIENCE) == b"A"
    client.disconnect()
    assert client.deq(timeout=PATIENCE) == b"B"


def test_defaults_and_positions() -> None:
    assert (SQClient().host, SQClient().port) == ("127.0.0.1", 1234)
    assert SQClient(None).host == SQServer(None, 0).host == socket.gethostname()
    logger = logging.getLogger("ours")
    assert SQServer("127.0.0.1", 0, logger).logger is SQClient("127.0.0.1", 1, logger).logger is logger
    assert SQServer(port=0).settings.ack_timeout is None
    assert SQServer(port=0, buff_size=64 << 10).settings.buff_size == 64 << 10
    for size in (64 << 10) - 1, (1 << 30) + 1:
        with pytest.raises(InvalidRequest, match="buff_size"):
            SQServer(port=0, buff_size=size)


def test_no_logging_handler_is_added(server: SQServer, client: SQClient) -> None:
    client.enq("A")
    assert [server.logger.name, client.logger.name] == ["stiqueue", "stiqueue.client"]
    assert server.logger.handlers == client.logger.handlers == []


@pytest.mark.parametrize("argument", ["backlog", "action_len", "max_workers"])
def test_arguments_that_are_gone_raise(argument: str) -> None:
    options: Any = {argument: 5}
    with pytest.raises(TypeError, match=argument):
        SQServer(port=0, **options)


def test_names_that_are_gone_are_gone() -> None:
    assert not hasattr(stiqueue, "PeekQueue")
    for name in "other_actions", "listen_single", "enq", "deq", "cnt", "peek", "q":
        assert not hasattr(SQServer, name)
    for name in "send_with_action", "connect", "socket":
        assert not hasattr(SQClient, name)


def test_an_address_that_others_can_reach_is_warned_about(caplog: pytest.LogCaptureFixture) -> None:
    with SQServer("0.0.0.0", 0) as server, SQClient(port=server.port) as client:
        assert client.enq("A") == 1
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert warning.getMessage().startswith("0.0.0.0 is reachable from other machines, without encryption")
