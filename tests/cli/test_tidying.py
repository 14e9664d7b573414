"""`stiqueue purge` and `redrive`."""

from __future__ import annotations

import pytest

from stiqueue import SQClient
from tests.cli.conftest import Cli, bodies, posix


def dead_letters(client: SQClient, count: int) -> None:
    """Let messages die in the queue `mail`."""
    client.enq_many(map(str, range(count)), queue="mail", headers={"to": "ann"})
    for _ in range(count):
        message = client.deq(queue="mail")
        assert message is not None
        message.dead_letter("no such address")


def test_purge_drops_what_is_ready(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abc"), queue="q")
    client.enq("later", queue="q", delay=60)
    assert cli.ok("purge", "--queue", "q", "--yes").text == "dropped 3 messages of q\n"
    counts = client.counts(queue="q")
    assert (counts.ready, counts.delayed) == (0, 1)
    assert cli.ok("purge", "--queue", "q", "--yes", "--json").json == {"queue": "q", "dropped": 0}


def test_purge_drops_what_is_delayed(cli: Cli, client: SQClient) -> None:
    client.enq("now", queue="q")
    client.enq("later", queue="q", delay=60)
    assert cli.ok("purge", "--queue", "q", "--yes", "--state", "delayed").text == "dropped 1 message of q\n"
    client.enq("later", queue="q", delay=60)
    assert cli.ok("purge", "--queue", "q", "--yes", "--state", "all").text == "dropped 2 messages of q\n"


def test_purge_does_nothing_when_there_is_nobody_to_ask(cli: Cli, client: SQClient) -> None:
    client.enq("a")
    assert "give --yes to drop messages" in cli.fails(2, "purge", stdin=b"y\n")
    assert client.cnt() == 1


@posix
@pytest.mark.parametrize(
    ("answer", "code", "told", "left"),
    [
        (b"y\n", 0, "dropped 2 messages of default", 0),
        (b"n\n", 1, "nothing was dropped", 2),
        (b"\n", 1, "nothing was dropped", 2),
        (b"what?\ny\n", 0, "dropped 2 messages of default", 0),
        (b"\x04", 1, "", 2),
        (b"\x03", -2, "", 2),
    ],
)
def test_purge_asks_on_a_terminal(cli: Cli, client: SQClient, answer: bytes, code: int, told: str, left: int) -> None:
    client.enq_many(list("ab"))
    ended, shown = cli.on_terminal("purge", keys=[(b"Drop 2 messages of default? [y/N]", answer)])
    assert (ended, client.cnt()) == (code, left)
    assert told in shown
    assert "Traceback" not in shown


@posix
def test_purge_does_not_ask_about_nothing(cli: Cli) -> None:
    assert cli.on_terminal("purge") == (0, "\x1b[33mstiqueue:\x1b[0m nothing ready in default\n")


def test_redrive_moves_dead_letters_back(cli: Cli, client: SQClient) -> None:
    dead_letters(client, 3)
    assert cli.ok("redrive", "--queue", "mail", "-n", "1").text == "moved 1 message from mail.dead\n"
    assert (bodies(client, "mail"), bodies(client, "mail.dead")) == ([b"0"], [b"1", b"2"])
    assert cli.ok("redrive", "--queue", "mail", "--json").json == {"queue": "mail", "moved": 2}
    assert bodies(client, "mail") == [b"0", b"1", b"2"]
    assert client.peek_messages(queue="mail")[0].headers == {"to": "ann"}


def test_redrive_without_dead_letters_is_no_error(cli: Cli, client: SQClient) -> None:
    assert cli.ok("redrive").text == "moved 0 messages from default.dead\n"
    dead_letters(client, 1)
    done = cli.run("redrive", "--queue", "mail.dead")
    assert (done.code, done.text) == (0, "moved 0 messages from mail.dead.dead\n")
    assert done.err == "stiqueue: --queue names the original queue of the dead letters, perhaps mail\n"


@pytest.mark.parametrize("command", ["purge", "redrive"])
def test_an_absent_server_is_exit_code_4(nobody: Cli, command: str) -> None:
    options = ["--yes"] if command == "purge" else []
    nobody.fails(4, command, "--timeout", "0.2", *options)


@pytest.mark.parametrize("arguments", [["redrive", "-n", "-1"], ["purge", "--yes", "--queue", "*"], ["purge", "all"]])
def test_bad_input_is_told_in_one_line(cli: Cli, arguments: list[str]) -> None:
    cli.fails(2, *arguments)
