"""`stiqueue cnt`, `peek`, `queues` and `top`."""

from __future__ import annotations

import json
import subprocess

import pytest

from stiqueue import SQClient
from stiqueue.cli.tables import age, rate, size
from tests.cli.conftest import Cli, posix
from tests.support.waiting import PATIENCE


def rows(text: str) -> list[dict[str, str]]:
    """Read what is printed when nobody watches."""
    heading, *lines = (line.split("\t") for line in text.splitlines())
    return [dict(zip(heading, line, strict=True)) for line in lines]


# -- cnt --------------------------------------------------------------------------------------------------------------


def test_cnt_counts_what_is_ready(cli: Cli, client: SQClient) -> None:
    assert cli.ok("cnt").text == "0\n"
    client.enq_many(list("abc"))
    client.enq("later", delay=60)
    client.deq()
    assert cli.ok("cnt").text == "2\n"
    counts = cli.ok("cnt", "--json").json
    assert (counts["ready"], counts["leased"], counts["delayed"], counts["enqueued"]) == (2, 1, 1, 4)


# -- peek -------------------------------------------------------------------------------------------------------------


def test_peek_shows_where_messages_stand(cli: Cli, client: SQClient) -> None:
    with SQClient(port=cli.port, consumer="worker-1") as worker:
        client.enq("held", headers={"to": "ann"})
        assert worker.deq() == b"held"
        client.enq("next", priority=9)
        client.enq("later", delay=3600)
        (ready,) = rows(cli.ok("peek").text)
        assert (ready["id"], ready["state"], ready["attempt"], ready["priority"]) == ("2", "ready", "0", "9")
        (leased,) = rows(cli.ok("peek", "--state", "leased").text)
        assert (leased["id"], leased["attempt"], leased["consumer"]) == ("1", "1", "worker-1")
        assert (leased["headers"], leased["body"]) == ('{"to": "ann"}', "held")
        (delayed,) = rows(cli.ok("peek", "--state", "delayed").text)
        assert (delayed["id"], 3_500_000 < int(delayed["due_ms"]) <= 3_600_000) == ("3", True)
        assert [row["id"] for row in rows(cli.ok("peek", "--state", "all").text)] == ["1", "2", "3"]


def test_peek_pages(cli: Cli, client: SQClient) -> None:
    client.enq_many(map(str, range(30)))
    assert [row["id"] for row in rows(cli.ok("peek").text)] == [str(number) for number in range(1, 11)]
    assert len(rows(cli.ok("peek", "-n", "0").text)) == 30
    assert [row["id"] for row in rows(cli.ok("peek", "--after-id", "10", "-n", "2").text)] == ["11", "12"]


@pytest.mark.parametrize(("state", "told"), [("ready", "nothing ready in q"), ("all", "nothing there in q")])
def test_peek_ends_with_3_when_nothing_is_there(cli: Cli, state: str, told: str) -> None:
    assert cli.fails(3, "peek", "--queue", "q", "--state", state) == f"stiqueue: {told}"


def test_bodies_are_harmless_and_short(cli: Cli, client: SQClient) -> None:
    client.enq_many(["\x1b[31mred\ttab\nline \u202e", b"\xff", "x" * 500])
    red, raw, long = (row["body"] for row in rows(cli.ok("peek").text))
    assert red == r"\x1b[31mred\ttab\nline \u202e"
    assert raw == "base64 /w=="
    assert long == "x" * 199 + "\N{HORIZONTAL ELLIPSIS}"
    assert rows(cli.ok("peek", "--full").text)[2]["body"] == "x" * 500
    assert [row["encoding"] for row in cli.ok("peek", "--json").jsons] == ["utf-8", "base64", "utf-8"]


def test_headers_in_a_pipe_can_be_told_apart(cli: Cli, client: SQClient) -> None:
    headers = {"a": "1 b=2", "c": "tab\there"}
    client.enq("x", headers=headers)
    (row,) = rows(cli.ok("peek").text)
    assert json.loads(row["headers"]) == headers


# -- queues -----------------------------------------------------------------------------------------------------------


def test_queues_lists_those_in_use(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abc"), queue="mail")
    client.enq("x", queue="mail.dead")
    client.deq(queue="mail")
    mail, dead = rows(cli.ok("queues").text)
    assert (mail["queue"], mail["ready"], mail["leased"], mail["enqueued"]) == ("mail", "2", "1", "3")
    assert (dead["queue"], dead["ready"]) == ("mail.dead", "1")
    assert [row["queue"] for row in cli.ok("queues", "--json").jsons] == ["mail", "mail.dead"]


def test_no_queues_is_no_error(cli: Cli) -> None:
    done = cli.run("queues")
    assert (done.code, done.out, done.err) == (0, b"", "stiqueue: no queues in use\n")
    assert cli.run("queues", "--json").out == b""


@pytest.mark.slow
@posix
@pytest.mark.parametrize("width", [60, 80, 100, 160])
def test_tables_fit_the_terminal(cli: Cli, client: SQClient, width: int) -> None:
    client.enq_many(["y" * 300] * 3, queue="a-queue-with-a-name-of-some-length", headers={"a-long-header": "z" * 90})
    for arguments in (["queues"], ["peek", "--queue", "a-queue-with-a-name-of-some-length"]):
        code, shown = cli.on_terminal(*arguments, size=(24, width))
        lines = shown.splitlines()
        assert code == 0
        assert len(lines) == (2 if arguments == ["queues"] else 4)
        assert {len(plain(line)) <= width for line in lines} == {True}
        assert "\x1b[1m" in shown, "no bold heading"


def plain(text: str) -> str:
    """Return text without colours."""
    from rich.text import Text

    return Text.from_ansi(text).plain


@posix
def test_colours_can_be_switched_off(cli: Cli, client: SQClient, monkeypatch: pytest.MonkeyPatch) -> None:
    client.enq("x")
    monkeypatch.setenv("NO_COLOR", "1")
    _, shown = cli.on_terminal("peek")
    assert "\x1b[32m" not in shown


# -- top --------------------------------------------------------------------------------------------------------------


def test_top_tells_rates(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abcd"), queue="q")
    with cli.start("top", "--json", "--interval", "300ms", "-n", "3") as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        client.enq_many(["x"] * 100, queue="q")
        client.deq(queue="q")
        client.ack()
        others = [json.loads(line) for line in process.stdout.read().splitlines()]
        assert process.wait(PATIENCE) == 0
    assert (first["ready"], first["enqueued_rate"]) == (4, 0.0)
    assert sum(row["enqueued_rate"] for row in others) > 50
    assert sum(row["acked_rate"] for row in others) > 0.5
    assert others[-1]["ready"] == 103
    assert others[-1]["time_ms"] - first["time_ms"] >= 590


@pytest.mark.slow
@posix
def test_top_says_which_columns_a_narrow_terminal_hides(cli: Cli, client: SQClient) -> None:
    client.enq("x", queue="q")
    _, wide = cli.on_terminal("top", "-n", "1", size=(24, 160))
    assert "too narrow" not in plain(wide)
    assert " dead " in plain(wide), "dead letters are shown"
    _, narrow = cli.on_terminal("top", "-n", "1", size=(24, 75))
    (told,) = [line for line in plain(narrow).splitlines() if "too narrow for: " in line]
    assert told.strip().endswith("size")


@posix
def test_a_column_that_says_nothing_is_not_shown_to_people(cli: Cli, client: SQClient) -> None:
    client.enq("x", queue="q")
    rare = {"queues": {"paused", "blocked"}, "top -n 1": {"paused"}, "peek --queue q": {"key"}}
    for command, columns in rare.items():
        _, shown = cli.on_terminal(*command.split(), size=(24, 200))
        assert not columns.intersection(plain(shown).split()), command
    client.enq("y", queue="q", key="k")
    client.enq("z", queue="q", key="k")
    client.deq(queue="q")
    client.deq(queue="q")
    client.pause(queue="q")
    for command, columns in rare.items():
        _, shown = cli.on_terminal(*command.split(), size=(24, 200))
        assert columns.intersection(plain(shown).split()) == columns, command


def test_top_without_a_terminal_prints_lines(cli: Cli, client: SQClient) -> None:
    client.enq("x", queue="q")
    lines = cli.ok("top", "-n", "2", "--interval", "10ms").lines
    assert [line.split("\t")[1] for line in lines] == ["queue", "q"] * 2


def test_top_does_not_look_without_a_pause(cli: Cli) -> None:
    assert "0 seconds are less than 0.01" in cli.fails(2, "top", "-n", "1", "--interval", "0")


@pytest.mark.slow
@posix
@pytest.mark.parametrize("key", [b"q", b"Q", b"\x03"])
def test_top_is_left_by_q_or_ctrl_c_and_leaves_the_terminal_as_it_was(cli: Cli, client: SQClient, key: bytes) -> None:
    client.enq("x", queue="mail")
    code, shown = cli.on_terminal("top", "--interval", "100ms", keys=[(b"mail", key)], size=(10, 100))
    assert code == 0
    assert shown.index("\x1b[?1049h") < shown.index("mail") < shown.index("\x1b[?1049l")
    assert shown.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in shown.partition("mail")[2]
    assert "Traceback" not in shown


@pytest.mark.slow
@posix
def test_a_narrow_terminal_leaves_out_columns_instead_of_cutting_numbers(cli: Cli, client: SQClient) -> None:
    client.enq_many(["x"] * 12_345, queue="mail")
    for command in (["queues"], ["top", "-n", "1"]):
        code, shown = cli.on_terminal(*command, size=(12, 60))
        assert code == 0
        assert "12,345" in shown
        assert "held" not in plain(shown).partition("too narrow for: ")[0]
    assert "q quits" in shown


@posix
def test_top_shows_the_busiest_when_there_are_too_many(cli: Cli, client: SQClient) -> None:
    for number in range(30):
        client.enq_many(["x"] * (number + 1), queue=f"q{number:02}")
    code, shown = cli.on_terminal("top", "-n", "1", size=(12, 100))
    assert code == 0
    assert "q29" in shown
    assert "q00" not in shown
    assert "and 24 more" in shown


@pytest.mark.slow
@posix
def test_top_outlives_its_server(unused_port: int) -> None:
    here = Cli(unused_port)
    with here.start("serve", "--data", ":memory:") as server, SQClient(port=unused_port, timeout=PATIENCE) as client:
        client.enq("x", queue="mail")
        keys = [(b"mail", server.kill), (b"no answer from", b"q")]
        code, shown = here.on_terminal("top", "--interval", "100ms", keys=keys)
    assert code == 0
    assert "Traceback" not in shown


def test_top_needs_a_server_to_begin_with(nobody: Cli) -> None:
    nobody.fails(4, "top", "--timeout", "0.2")


def test_top_ends_when_its_reader_goes_away(cli: Cli, client: SQClient) -> None:
    client.enq("x")
    with cli.start("top", "--interval", "50ms", stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(PATIENCE) == 141


# -- values -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "-"),
        (40, "0.0s"),
        (9_949, "9.9s"),
        (59_999, "59s"),
        (60_000, "1m 0s"),
        (3_599_000, "59m 59s"),
        (3_600_000, "1h 0m"),
        (90_061_000, "1d 1h"),
        (864_000_000, "10d 0h"),
    ],
)
def test_ages_have_two_units(milliseconds: float, text: str) -> None:
    assert age(milliseconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "-"),
        (999, "999 B"),
        (1_000, "1 kB"),
        (1_234, "1.23 kB"),
        (999_499, "999 kB"),
        (999_999, "1 MB"),
        (1_500_000_000, "1.5 GB"),
        (2e12, "2 TB"),
        (1.5e15, "1,500 TB"),
    ],
)
def test_sizes_have_three_digits(value: float, text: str) -> None:
    assert size(value) == text


def test_low_rates_have_a_digit_more() -> None:
    assert list(map(rate, (0, 0.5, 9.9, 10, 1234.5))) == ["-", "0.5", "9.9", "10", "1,234"]
