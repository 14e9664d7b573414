"""`stiqueue enq`: arguments, lines, NUL, whole, and what goes wrong."""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from stiqueue import SQClient, SQServer
from stiqueue.cli.lines import CHUNK_BYTES, read_batches
from stiqueue.errors import InvalidRequest
from tests.cli.conftest import Cli, bodies, posix, rest
from tests.support.script import LOST, Script, played
from tests.support.waiting import PATIENCE, until


def test_an_argument_is_a_message(cli: Cli, client: SQClient) -> None:
    assert cli.ok("enq", "Hello, World!").text == "enqueued 1 message in default, id 1\n"
    assert client.deq(0) == b"Hello, World!"


def test_each_argument_is_a_message_and_may_be_empty_or_begin_with_a_dash(cli: Cli, client: SQClient) -> None:
    assert cli.ok("enq", "--queue", "q", "--", "a b", "", "-c").text == "enqueued 3 messages in q\n"
    assert bodies(client, "q") == [b"a b", b"", b"-c"]


@pytest.mark.parametrize(
    ("stdin", "expected"),
    [
        (b"a\nb\n", [b"a", b"b"]),
        (b"a\nb", [b"a", b"b"]),
        (b"a\n\nb\n", [b"a", b"", b"b"]),
        (b"\n", [b""]),
        (b"a\r\nb\0c\n", [b"a\r", b"b\0c"]),
        (b"\xff\xfe\n", [b"\xff\xfe"]),
        (b"", []),
    ],
)
def test_each_line_is_a_message(cli: Cli, client: SQClient, stdin: bytes, expected: list[bytes]) -> None:
    assert cli.ok("enq", "--json", stdin=stdin).json == {"queue": "default", "count": len(expected)}
    assert bodies(client) == expected


def test_messages_end_with_nul_when_asked_to(cli: Cli, client: SQClient) -> None:
    cli.ok("enq", "-0", stdin=b"a\nb\0c\0d")
    assert bodies(client) == [b"a\nb", b"c", b"d"]


@pytest.mark.parametrize("stdin", [b"a\nb\n\0", b"", b"x" * 3_000_000])
def test_all_of_stdin_is_one_message_when_asked_to(cli: Cli, client: SQClient, stdin: bytes) -> None:
    assert cli.ok("enq", "--whole", "--json", stdin=stdin).json == {"queue": "default", "count": 1, "id": 1}
    assert bodies(client) == [stdin]


def test_the_options_reach_the_message(cli: Cli) -> None:
    cli.ok("enq", "x", "--priority", "7", "--header", "to=ann=bob", "--header", "empty=")
    message = cli.ok("peek", "--json").json
    assert (message["priority"], message["headers"]) == (7, {"to": "ann=bob", "empty": ""})


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("1.5", 1.5), ("250ms", 0.25), ("5m", 300), ("2h", 7200), ("7d", 604_800)]
)
def test_durations_have_units(cli: Cli, text: str, seconds: float) -> None:
    cli.ok("enq", "x", "--delay", text)
    message = cli.ok("peek", "--state", "delayed", "--json").json
    assert message["ready_time_ms"] - message["enqueue_time_ms"] == pytest.approx(seconds * 1000, abs=5)


def test_a_message_expires(cli: Cli) -> None:
    cli.ok("enq", "x", "--ttl", "1ms")
    until(lambda: cli.ok("cnt").text, "0\n")


def test_a_request_id_enqueues_once(cli: Cli) -> None:
    answers = [cli.ok("enq", "x", "--request-id", "order-7", "--json").json for _ in range(2)]
    assert [answer["id"] for answer in answers] == [1, 1]
    assert cli.ok("cnt").text == "1\n"


def test_lines_are_sent_as_they_come_in(cli: Cli, client: SQClient) -> None:
    with cli.start("enq") as process:
        assert process.stdin is not None
        for count in range(1, 4):
            process.stdin.write(b"line\n")
            process.stdin.flush()
            until(client.cnt, count)
        process.stdin.write(b"half a ")
        process.stdin.flush()
        out, err = process.communicate(b"line", PATIENCE)
    assert (process.returncode, out, err) == (0, b"enqueued 4 messages in default\n", b"")
    assert bodies(client)[-1] == b"half a line"


def test_many_lines_go_at_batch_speed(cli: Cli, client: SQClient) -> None:
    done = cli.shell("seq 100000 | stiqueue enq")
    assert (done.code, done.err) == (0, "")
    assert done.text.startswith("enqueued 100,000 messages in default, ")
    assert client.cnt() == 100_000
    assert client.peek(3) == b"1,2,3"
    # One request for each message would take a minute.
    assert float(done.text.split()[-3].replace(",", "")) > 20_000


def test_batches_hold_what_came_in_in_order_and_never_too_much() -> None:
    class Trickle:
        """Returns a little at a time, as a slow writer does."""

        def __init__(self, chunks: list[bytes]) -> None:
            self.chunks = iter(chunks)

        def read1(self, size: int = -1, /) -> bytes:
            return next(self.chunks, b"")

    assert list(read_batches(Trickle([b"a\nb", b"c\n", b"d", b"e", b"\n"]), b"\n")) == [[b"a"], [b"bc"], [b"de"]]
    lines = [b"%d" % number for number in range(2_500)]
    batches = list(read_batches(Trickle([b"\n".join(lines)]), b"\n"))
    assert list(map(len, batches)) == [999, 999, 501, 1]
    assert [line for batch in batches for line in batch] == lines
    long = b"x" * CHUNK_BYTES
    assert list(read_batches(Trickle([b"a\n" + long, long, b"\nb\nc\n"]), b"\n")) == [
        [b"a"],
        [long + long],
        [b"b", b"c"],
    ]


# -- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--priority", "256", "x"], "256 is not in the range 0<=x<=255"),
        (["--priority", "high", "x"], "'high' is not a valid integer"),
        (["--delay", "-1", "x"], "'-1' is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d"),
        (["--delay", "367d", "x"], "more than 3.16224e+07"),
        (["--ttl", "0", "x"], "ttl: 0 s is not within more than 0"),
        (["--queue", "a b", "x"], "'a b' is not 1 to 128 of A-Z a-z 0-9 . _ -"),
        (["--header", "x", "x"], "'x' is not KEY=VALUE"),
        (["--header", "=x", "x"], "'=x' is not KEY=VALUE"),
        (["--header", "k=" + "v" * 9000, "x"], "headers: 9,001 bytes of keys and values are above the limit of 8,192"),
        (["--request-id", "i" * 129, "x"], "request_id: 129 bytes are above the limit of 128"),
        (["--request-id", "i", "x", "y"], "--request-id needs exactly one message"),
        (["--request-id", "i"], "--request-id needs exactly one message"),
        (["--whole", "x"], "--null and --whole read stdin: leave out MESSAGE"),
        (["--null", "--whole"], "--null and --whole: give only one of them"),
        (["--port", "0", "x"], "0 is not in the range 1<=x<=65535"),
        (["--colour", "red", "x"], "No such option"),
    ],
)
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: list[str], told: str) -> None:
    assert told in cli.fails(2, "enq", *arguments)
    assert cli.ok("cnt").text == "0\n"


def test_an_absent_server_is_told_in_one_line(nobody: Cli) -> None:
    line = nobody.fails(4, "enq", "x", "--timeout", "0.2")
    assert f"no answer from 127.0.0.1:{nobody.port} within 0.2 s" in line


def test_a_message_too_large_is_told_with_how_many_are_enqueued(cli: Cli, client: SQClient) -> None:
    told = cli.fails(1, "enq", stdin=b"a\nb\n" + b"x" * 4_180_000 + b"\nc\n")
    assert (
        "a message of 4,180,000 bytes with its headers is above the limit of 4,177,920; 2 messages enqueued before"
        in told
    )
    assert bodies(client) == [b"a", b"b"]


@pytest.fixture
def small() -> Iterator[Cli]:
    """The command, aimed at a server that takes 100 messages of up to 48 kB a request."""
    with SQServer(port=0, buff_size=64 << 10, max_messages=100) as server:
        yield Cli(server.port)


def test_batches_are_as_small_as_the_server_wants_them(small: Cli) -> None:
    lines = [bytes([ord("a") + number]) * 20_000 for number in range(20)]
    assert small.ok("enq", stdin=b"\n".join(lines)).text == "enqueued 20 messages in default\n"
    assert [message["body"] for message in small.ok("peek", "-n", "0", "--json").jsons] == [
        line.decode() for line in lines
    ]


def test_a_full_queue_is_told_with_how_many_are_enqueued(small: Cli) -> None:
    small.ok("enq", stdin=b"x\n" * 95)
    told = small.fails(5, "enq", stdin=b"y\n" * 6)
    assert "; 0 messages enqueued before" in told
    assert json.loads(small.ok("cnt", "--json").text)["ready"] == 95


def test_block_waits_for_room(small: Cli) -> None:
    small.ok("enq", stdin=b"x\n" * 100)
    assert "max_messages is 100" in small.fails(5, "enq", "y", "--block", "--timeout", "0.2")
    with SQClient(port=small.port) as client:
        later = threading.Timer(0.5, client.purge)
        later.start()
        assert small.ok("enq", "y", "--block", "--timeout", "20").text.startswith("enqueued 1 message")
        later.join()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_in_the_middle_it_tells_how_many_are_enqueued(
    cli: Cli, client: SQClient, number: signal.Signals
) -> None:
    with cli.start("enq") as process:
        assert process.stdin is not None
        for lines, enqueued in (b"a\nb\n", 2), (b"c\nunfinished", 3):
            process.stdin.write(lines)
            process.stdin.flush()
            until(client.cnt, enqueued)
        process.send_signal(number)
        assert process.wait(PATIENCE) == -number
        out, told = rest(process)
        # It sends a request when the one before is answered; the answer to the last may be on its way.
        assert (out, re.sub(rb"[23]", b"2 or 3", told)) == (b"", b"stiqueue: stopped with 2 or 3 messages enqueued\n")
    assert bodies(client) == [b"a", b"b", b"c"]


@pytest.mark.slow
@posix
def test_a_file_is_enqueued_with_a_progress_bar_that_goes_away(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"x\n" * 1_000_000)
    command = ["sh", "-c", '"$0" -m stiqueue enq < "$1"', sys.executable, str(lines)]
    code, shown = cli.on_terminal(command=command)
    assert code == 0
    assert "enqueueing" in shown
    assert re.search(r"\d+%", shown)
    assert (
        shown.rstrip().splitlines()[-1].rpartition("\x1b[2K")[2].startswith("enqueued 1,000,000 messages in default, ")
    )
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert client.cnt() == 1_000_000


@posix
def test_ctrl_c_at_a_progress_bar_leaves_the_terminal_as_it_was(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"x\n" * 5_000_000)
    command = ["sh", "-c", 'exec "$0" -m stiqueue enq < "$1"', sys.executable, str(lines)]
    code, shown = cli.on_terminal(command=command, keys=[(b"messages, ", b"\x03")])
    assert code == -signal.SIGINT
    told = re.search(r"stiqueue: stopped with ([\d,]+) messages enqueued\n$", shown)
    assert told, shown
    assert "\x1b[?25h" in shown.rpartition("^C")[2]
    # The request under way may have arrived.
    assert 0 <= client.cnt() - int(told[1].replace(",", "")) <= 1_000


@posix
def test_a_person_types_messages(cli: Cli, client: SQClient) -> None:
    keys = [(b"Ctrl-D ends them", b"one\ntwo\n"), (b"two\r\n", b"\x04")]
    code, shown = cli.on_terminal("enq", keys=keys)
    assert (code, shown.splitlines()[-1]) == (0, "enqueued 2 messages in default")
    assert bodies(client) == [b"one", b"two"]


def test_only_the_request_that_was_refused_is_divided() -> None:
    """Of arguments that make several requests."""
    arguments = [*map(str, range(1_000)), "x" * 40_000, "y" * 40_000]
    with SQServer(port=0, buff_size=64 << 10) as server, SQClient(port=server.port) as client:
        assert "enqueued 1,002 messages" in Cli(server.port).ok("enq", *arguments).text
        assert [message.decode() for message in client.peek_messages()] == arguments


def test_a_batch_is_divided_only_when_it_was_certainly_refused() -> None:
    """At the first try, whose answer was lost, it may have been enqueued."""
    with played(Script(LOST, InvalidRequest("too large", "MESSAGE_TOO_LARGE"))) as script:
        script.go.set()
        told = Cli(script.port).fails(1, "enq", "a", "b")
    assert "0 messages enqueued before, and perhaps the 2 after them" in told
    assert all(len(ids) == 1 for ids in script.request_ids.values())
