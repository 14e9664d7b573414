"""`stiqueue deq`: what it prints, and that it acknowledges nothing before that."""

from __future__ import annotations

import base64
import signal
import subprocess

import pytest

from stiqueue import SQClient, SQServer
from tests.cli.conftest import Cli, bodies
from tests.support.waiting import PATIENCE, until


def test_it_prints_the_body_and_acks(cli: Cli, client: SQClient, server: SQServer) -> None:
    client.enq("Hello, World!")
    assert cli.ok("deq").out == b"Hello, World!\n"
    counts = client.counts()
    assert (counts.ready, counts.leased, counts.acked) == (0, 0, 1)


def test_it_takes_no_more_than_it_is_asked_to(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abcde"))
    assert cli.ok("deq", "-n", "3").out == b"a\nb\nc\n"
    assert [(bytes(message), message.attempt) for message in client.peek_messages()] == [(b"d", 0), (b"e", 0)]


@pytest.mark.parametrize(("option", "printed"), [("--raw", b"a\nb"), ("--null", b"a\n\0b\0"), ("-0", b"a\n\0b\0")])
def test_bodies_are_exact(cli: Cli, client: SQClient, option: str, printed: bytes) -> None:
    client.enq_many([b"a\n", b"b"])
    assert cli.ok("deq", "-n", "2", option).out == printed


def test_lines_come_out_as_they_went_in(cli: Cli) -> None:
    lines = b"a\n\n \xff\r\nz\n"
    cli.ok("enq", stdin=lines)
    assert cli.ok("deq", "-n", "4").out == lines


def test_json_tells_text_from_bytes(cli: Cli, client: SQClient) -> None:
    client.enq("grün\n", headers={"to": "ann"}, priority=9)
    client.enq(b"\xff\0")
    text, data = cli.ok("deq", "-n", "2", "--json").jsons
    assert text.pop("enqueue_time_ms") > 1_700_000_000_000
    assert text == {
        "id": 1,
        "queue": "default",
        "attempt": 1,
        "priority": 9,
        "headers": {"to": "ann"},
        "encoding": "utf-8",
        "body": "grün\n",
    }
    assert (data["encoding"], base64.b64decode(data["body"])) == ("base64", b"\xff\0")


def test_nothing_there_is_exit_code_3(cli: Cli, client: SQClient) -> None:
    done = cli.run("deq", "--timeout", "0")
    assert (done.code, done.out, done.err) == (3, b"", "")
    client.enq("a")
    done = cli.run("deq", "-n", "2", "--timeout", "0.1")
    assert (done.code, done.out, done.err) == (3, b"a\n", "")
    assert client.counts().acked == 1


def test_it_waits_for_a_message(cli: Cli, client: SQClient) -> None:
    with cli.start("deq", "--queue", "later") as process:
        until(lambda: client.counts(queue="later").consumers, 1)
        client.enq("x", queue="later")
        assert process.communicate(timeout=PATIENCE) == (b"x\n", b"")
    assert process.returncode == 0


def test_no_ack_takes_at_most_once(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("ab"))
    assert cli.ok("deq", "--no-ack").out == b"a\n"
    assert bodies(client) == [b"b"]


def test_an_absent_server_is_exit_code_4(nobody: Cli) -> None:
    nobody.fails(4, "deq", "--connect-timeout", "0.2")
    nobody.fails(4, "deq", "--timeout", "0.2")


@pytest.mark.parametrize(
    "arguments", [["--count", "0"], ["--json", "--raw"], ["--null", "--raw"], ["--timeout", "soon"], ["extra"]]
)
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: list[str]) -> None:
    cli.fails(2, "deq", *arguments)


def test_a_message_that_nobody_read_goes_back(cli: Cli, client: SQClient) -> None:
    client.enq("x")
    with cli.start("deq", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""
    until(lambda: client.counts().ready, 1)
    assert client.counts().acked == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_acked_before_it_is_written(cli: Cli, client: SQClient, number: signal.Signals) -> None:
    client.enq_many([b"x" * 100_000] * 5)  # more than a pipe holds, so that the first write does not return
    with cli.start("deq", "-n", "5") as process:
        until(lambda: client.counts().leased, 1)
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
    until(lambda: client.counts().ready, 5)
    assert client.counts().acked == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_can_be_stopped_while_it_waits(cli: Cli, client: SQClient, number: signal.Signals) -> None:
    client.enq("a")
    with cli.start("deq", "-n", "2") as process:
        until(lambda: client.counts().acked, 1)
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (-number, b"a\n", b"")
    until(lambda: client.queues(), {})


def test_a_full_disk_is_an_error_and_the_message_goes_back(cli: Cli, client: SQClient) -> None:
    client.enq("x")
    with open("/dev/full", "wb") as full, cli.start("deq", stdout=full) as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert err.splitlines() == [b"stiqueue: [Errno 28] No space left on device"]
    until(lambda: client.counts().ready, 1)
