"""`stiqueue consume`: printing, running a command for each message, and being stopped."""

from __future__ import annotations

import base64
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue import SQClient, SQServer, State
from tests.cli.conftest import Cli, bodies, rest
from tests.support.waiting import PATIENCE, until

DRAIN = ("--timeout", "0")
ENQ = f'"{sys.executable}" -m stiqueue enq'


# -- printing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefetch", ["1", "100"])
def test_it_prints_and_acks_everything(cli: Cli, client: SQClient, prefetch: str) -> None:
    client.enq_many(str(number) for number in range(250))
    assert cli.ok("consume", *DRAIN, "--prefetch", prefetch).lines == [str(number) for number in range(250)]
    assert client.queues() == {} or client.counts().acked == 250


def test_an_empty_queue_is_done_at_once(cli: Cli) -> None:
    assert cli.ok("consume", *DRAIN).out == b""


def test_bodies_and_json_are_those_of_deq(cli: Cli, client: SQClient) -> None:
    client.enq_many([b"\xff", b"b"])
    assert cli.ok("consume", *DRAIN, "-0").out == b"\xff\0b\0"
    client.enq(b"\xff")
    assert base64.b64decode(cli.ok("consume", *DRAIN, "--json").json["body"]) == b"\xff"


def test_it_waits_for_messages(cli: Cli, client: SQClient) -> None:
    with cli.start("consume") as process:
        assert process.stdout is not None
        for body in (b"a", b"b"):
            client.enq(body)
            assert process.stdout.readline() == body + b"\n"
        until(lambda: client.counts().acked, 2)


def test_what_nobody_read_goes_back(cli: Cli, client: SQClient) -> None:
    with cli.start("consume") as process:
        assert process.stdout is not None
        client.enq("a")
        assert process.stdout.readline() == b"a\n"
        process.stdout.close()
        client.enq("b")
        assert process.wait(PATIENCE) == 141
    until(lambda: bodies(client), [b"b"])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130), (signal.SIGHUP, 0)])
def test_it_can_be_stopped_while_it_waits(cli: Cli, client: SQClient, number: signal.Signals, code: int) -> None:
    client.enq_many(list("ab"))
    ours = signal.signal(number, signal.SIG_DFL)  # a command ignores what its parent ignores, as nohup does SIGHUP
    with cli.start("consume", "--prefetch", "10") as process:
        signal.signal(number, ours)
        until(lambda: client.counts().acked, 2)
        process.send_signal(number)
        assert process.communicate(timeout=PATIENCE) == (b"a\nb\n", b"")
    assert process.returncode == code
    until(lambda: client.queues(), {})


def test_it_can_be_stopped_in_the_middle_of_many(cli: Cli, client: SQClient) -> None:
    many = 200_000  # more than can be printed before the signal is looked at
    client.enq_many(map(str, range(many)))
    with cli.start("consume", "--prefetch", "1000") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"0\n"
        process.send_signal(signal.SIGTERM)
        out, err = rest(process)
    assert process.returncode == 0
    assert set(err.splitlines()) <= {b"stiqueue: stopping after this message; repeat to stop at once"}
    printed = 1 + len(out.splitlines())
    until(lambda: client.counts().leased, 0)
    counts = client.counts()
    assert printed < many
    assert (counts.acked, counts.ready) == (printed, many - printed)
    assert client.peek(1) == str(printed).encode()


def test_it_survives_a_restart_of_the_server(cli: Cli, unused_port: int) -> None:
    here = Cli(unused_port)
    with here.start("consume", "--connect-timeout", "60") as process:
        assert process.stdout is not None
        for body in (b"before", b"after"):
            with here.start("serve", "--data", ":memory:"), SQClient(port=unused_port, timeout=PATIENCE) as client:
                client.enq(body)
                assert process.stdout.readline() == body + b"\n"


def test_an_absent_server_is_exit_code_4(nobody: Cli) -> None:
    nobody.fails(4, "consume", "--connect-timeout", "0.2")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--prefetch", "0"],
        ["--prefetch", "10001"],
        ["--exec", "cat", "--raw"],
        ["--exec", "cat", "-0"],
        ["--exec", "cat", "--retry-delay", "2h"],
        ["--json", "--raw"],
        ["--timeout", "x"],
    ],
)
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: list[str]) -> None:
    cli.fails(2, "consume", *arguments)


# -- a command for each message ---------------------------------------------------------------------------------------


def test_the_command_gets_the_message_on_stdin_and_the_rest_in_its_environment(
    cli: Cli, client: SQClient, tmp_path: Path
) -> None:
    client.enq(b"\xffbody\n", queue="mail", priority=7, headers={"reply-to": "ann", "ünï": "x", "nul": "\0"})
    done = cli.process(
        "consume", "--queue", "mail", *DRAIN, "--exec", f"cat > {tmp_path}/body; env | grep ^STIQUEUE_ > {tmp_path}/env"
    )
    assert (done.code, done.out, done.err) == (0, b"", "")
    assert (tmp_path / "body").read_bytes() == b"\xffbody\n"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    assert int(environment.pop("STIQUEUE_ENQUEUE_TIME_MS")) > 1_700_000_000_000
    assert json.loads(environment.pop("STIQUEUE_HEADERS")) == {"reply-to": "ann", "ünï": "x", "nul": "\0"}
    assert environment == {
        "STIQUEUE_ID": "1",
        "STIQUEUE_ATTEMPT": "1",
        "STIQUEUE_QUEUE": "mail",
        "STIQUEUE_PRIORITY": "7",
        "STIQUEUE_HEADER_REPLY_TO": "ann",
        "STIQUEUE_HEADER__N_": "x",
        "STIQUEUE_HOST": "127.0.0.1",
        "STIQUEUE_PORT": str(cli.port),
    }
    assert client.counts(queue="mail").acked == 1


def test_a_stiqueue_in_the_command_reaches_the_same_server(cli: Cli, client: SQClient) -> None:
    client.enq("a")
    done = cli.process("consume", *DRAIN, "--exec", f"{ENQ} --whole --queue next --header from=$STIQUEUE_ID")
    assert (done.code, done.err) == (0, "")
    (message,) = client.peek_messages(queue="next")
    assert (message, message.headers) == (b"a", {"from": "1"})


def test_a_command_may_leave_its_stdin_alone(cli: Cli, client: SQClient) -> None:
    client.enq(b"x" * 1_000_000)
    assert cli.ok("consume", *DRAIN, "--exec", "exit 0").out == b""
    assert client.queues() == {} or client.counts().acked == 1


def test_what_the_command_prints_is_seen_in_order(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abc"))
    assert cli.process("consume", *DRAIN, "--prefetch", "3", "--exec", "cat; echo").text == "a\nb\nc\n"


def test_a_failed_message_is_tried_again_later_and_the_wait_doubles(cli: Cli, client: SQClient) -> None:
    client.enq("bad")
    done = cli.run("consume", *DRAIN, "--exec", "exit 9", "--retry-delay", "100ms")
    assert (done.code, done.err) == (0, "stiqueue: message 1, attempt 1: exit status 9, requeued for 0.1 s\n")
    (message,) = client.peek_messages(state=State.DELAYED)
    assert message.attempt == 1
    until(client.cnt, 1)
    done = cli.run("consume", *DRAIN, "--exec", "kill -9 $$", "--retry-delay", "100ms")
    assert done.err == "stiqueue: message 1, attempt 2: killed by SIGKILL, requeued for 0.2 s\n"


def test_a_failed_message_waits_a_second_by_default(cli: Cli, client: SQClient) -> None:
    client.enq_many(["bad", "good"])
    done = cli.run("consume", *DRAIN, "--exec", "grep -q good")
    assert done.err == "stiqueue: message 1, attempt 1: exit status 1, requeued for 1 s\n"
    assert client.counts().acked == 1


def test_without_a_delay_a_failed_message_is_tried_again_before_all_others(
    cli: Cli, client: SQClient, tmp_path: Path
) -> None:
    client.enq_many(list("ab"))
    command = f"cat >> {tmp_path}/seen; test $STIQUEUE_ATTEMPT = 3 -o $STIQUEUE_ID = 2"
    done = cli.run("consume", *DRAIN, "--retry-delay", "0", "--exec", command)
    assert [line.partition(": ")[2] for line in done.err.splitlines()] == [
        "message 1, attempt 1: exit status 1, requeued",
        "message 1, attempt 2: exit status 1, requeued",
    ]
    assert (tmp_path / "seen").read_text() == "aaab"
    assert client.queues() == {} or client.counts().acked == 2


@pytest.mark.parametrize(("command", "status"), [("no-such-command-here", 127), ("/", 126), ("exit 127", 127)])
def test_a_command_that_cannot_be_run_ends_it_and_the_message_goes_back(
    cli: Cli, client: SQClient, command: str, status: int
) -> None:
    client.enq_many(list("ab"))
    done = cli.run("consume", "--prefetch", "2", "--exec", command, "--json")
    assert done.code == 1
    assert done.err.splitlines()[-1] == f"stiqueue: cannot run the command of --exec: exit status {status}"
    until(lambda: bodies(client), [b"a", b"b"])


def test_json_tells_how_each_message_went(cli: Cli, client: SQClient) -> None:
    client.enq_many(["good", "bad"])
    lines = cli.run("consume", *DRAIN, "--json", "--exec", "grep -q good", "--retry-delay", "5s").jsons
    assert all(0 < line.pop("seconds") < PATIENCE for line in lines)
    assert lines == [
        {"id": 1, "queue": "default", "attempt": 1, "status": 0, "outcome": "acked", "delay": 0.0},
        {"id": 2, "queue": "default", "attempt": 1, "status": 1, "outcome": "requeued", "delay": 5.0},
    ]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_stopping_lets_the_command_finish_and_gives_the_others_back(
    cli: Cli, client: SQClient, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    client.enq_many(list("abc"))
    command = f"touch {tmp_path}/begun; until test -e {tmp_path}/finish; do sleep 0.05; done; cat"
    with cli.start("consume", "--prefetch", "3", "--exec", command) as process:
        until((tmp_path / "begun").exists)
        process.send_signal(number)
        assert process.stderr is not None
        assert process.stderr.readline() == b"stiqueue: stopping after this message; repeat to stop at once\n"
        (tmp_path / "finish").touch()
        assert rest(process) == (b"a", b"")
    assert process.returncode == code
    until(lambda: bodies(client), [b"b", b"c"])
    assert client.counts().acked == 1


def test_a_second_signal_stops_the_command_and_gives_its_message_back(
    cli: Cli, client: SQClient, tmp_path: Path
) -> None:
    client.enq("a")
    command = f"touch {tmp_path}/begun; sleep 60 & wait"
    with cli.start("consume", "--exec", command) as process:
        until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        process.stderr.readline()
        process.send_signal(signal.SIGTERM)
        _, err = rest(process)
    assert (process.returncode, err) == (0, b"stiqueue: message 1, attempt 1: killed by SIGTERM, requeued\n")
    until(lambda: bodies(client), [b"a"])


def test_a_third_signal_ends_it_whatever_the_command_does(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    client.enq("a")
    wait = f"while test -e {tmp_path}/begun; do sleep 0.05; done"
    command = f"trap 'touch {tmp_path}/told' TERM; touch {tmp_path}/begun; {wait}"
    with cli.start("consume", "--exec", command, stderr=subprocess.DEVNULL) as process:
        until((tmp_path / "begun").exists)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGINT)
        until((tmp_path / "told").exists)
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) in (130, 143)
        (tmp_path / "begun").unlink()
    until(lambda: bodies(client), [b"a"])


def test_a_message_acked_too_late_is_told() -> None:
    with SQServer(port=0, ack_timeout=0.5) as server, SQClient(port=server.port) as client:
        client.enq("a")
        command = "test $STIQUEUE_ATTEMPT -gt 1 || sleep 0.8"
        done = Cli(server.port).run("consume", *DRAIN, "--exec", command, "--json")
    first, *_ = done.err.splitlines()
    assert first == "stiqueue: message 1 was acked too late: its lease had ended, so it is delivered again"
    outcomes = [line["outcome"] for line in done.jsons]
    assert (outcomes[0], outcomes[-1]) == ("stale", "acked")
