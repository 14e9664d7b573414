"""`stiqueue pause`, `resume`, `settings`, `cancel` and `reschedule`."""

from __future__ import annotations

from pathlib import Path

import pytest

from stiqueue import SQClient, SQServer, State
from tests.cli.conftest import Cli


def test_a_queue_is_paused_and_resumed(cli: Cli, client: SQClient) -> None:
    client.enq("a", queue="mail")
    assert cli.ok("pause", "mail").text == "paused mail\n"
    assert client.deq(timeout=0, queue="mail") is None
    assert cli.ok("queues").text.splitlines()[1].split("\t")[:5] == ["mail", "1", "0", "0", "True"]
    assert cli.ok("resume", "mail").text == "resumed mail\n"
    assert client.deq(timeout=0, queue="mail") == b"a"


def test_a_pause_may_have_an_end(cli: Cli, client: SQClient) -> None:
    assert cli.ok("pause", "mail", "--for", "10m", "--json").json == {"queue": "mail", "paused": True, "seconds": 600.0}
    assert 590_000 < client.counts(queue="mail").paused_ms <= 600_000
    assert cli.ok("settings", "mail").text.startswith("mail: paused yes for ")


def test_resume_tells_of_a_pattern(cli: Cli, client: SQClient) -> None:
    cli.ok("pause", "m*")
    cli.ok("pause", "mail")
    done = cli.run("resume", "mail", "--json")
    assert (done.code, done.json) == (0, {"queue": "mail", "paused": True})
    assert done.err.startswith("stiqueue: mail is still paused, by a pattern")
    assert cli.run("resume", "mail").text == "", "it is not told that it was resumed"


def test_settings_are_changed_shown_and_taken_back(cli: Cli, client: SQClient) -> None:
    assert cli.ok("settings", "m*", "--max-leased", "5", "--ttl", "1h").text == "m*: ttl 3600, max_leased 5\n"
    assert cli.ok("settings", "mail", "--max-attempts", "3", "--dead-letter-queue", "all.dead").code == 0
    assert client.settings(queue="mail").max_leased == 5
    assert cli.ok("settings").lines == [
        "queue\tsettings\tfrom",
        "m*\tttl 3600, max_leased 5\tserver",
        "mail\tmax_attempts 3, dead_letter_queue all.dead\tserver",
    ]
    shown = cli.ok("settings", "mail", "--json").json
    assert (shown["max_leased"], shown["max_attempts"], shown["paused"]) == (5, 3, False)
    assert cli.ok("settings", "m*", "--ttl", "default", "--ack-timeout", "500ms", "--json").json == {
        "queue": "m*",
        "ack_timeout": 0.5,
        "max_leased": 5,
    }
    assert cli.ok("settings", "m*").lines[1:] == ["m*\tack_timeout 0.5, max_leased 5\tserver"]


def test_no_limit_is_said_in_words(cli: Cli, client: SQClient) -> None:
    options = ("--max-attempts", "0", "--ack-timeout", "0", "--ttl", "0")
    said = "mail: max_attempts no limit, ack_timeout never, ttl for ever\n"
    assert cli.ok("settings", "mail", *options).text == said
    assert cli.ok("settings", "mail", "--json").json["max_attempts"] == 0


def test_without_settings_there_is_nothing_to_list(cli: Cli, client: SQClient) -> None:
    done = cli.run("settings")
    assert (done.code, done.out, done.err) == (0, b"", "stiqueue: no settings were made: the server's options hold\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pause", "a b"], "is not 1 to 128 of"),
        (["pause", "a", "--for", "0"], "0 seconds are less than 0.001"),
        (["pause", "a", "--for", "400d"], "more than"),
        (["pause"], "Missing argument 'QUEUE'"),
        (["settings", "a", "--max-leased", "many"], "'many' is not a whole number, nor default"),
        (["settings", "a", "--max-leased", "-1"], "max_leased: -1 is not within 0"),
        (["settings", "a", "--ttl", "soon"], "'soon' is not a duration"),
        (["settings", "a", "--dead-letter-queue", "b"], "does not end with .dead"),
        (["settings", "--max-leased", "1"], "name the queue whose settings to change"),
        (["cancel", "a"], "Missing argument 'ID...'"),
        (["cancel", "a", "x"], "'x' is not a valid integer"),
        (["cancel", "a", "0"], "0 is not in the range"),
        (["reschedule", "a", "1", "400d"], "more than"),
    ],
)
def test_what_is_wrong_is_refused(cli: Cli, client: SQClient, arguments: list[str], said: str) -> None:
    assert said in cli.fails(2, *arguments)
    assert client.all_settings().settings == []


def test_what_the_file_says_is_listed_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text("[mail]\nmax_leased = 3")
    with SQServer(port=0, queues=str(file)) as server:
        cli = Cli(server.port)
        assert cli.ok("settings").lines[1:] == ["mail\tmax_leased 3\tfile"]
        assert "the server's settings file sets it for mail" in cli.fails(1, "settings", "mail", "--max-leased", "1")


def test_messages_are_cancelled(cli: Cli, client: SQClient) -> None:
    client.enq_many(list("abc"), queue="mail")
    assert cli.ok("cancel", "mail", "1", "3").text == "cancelled 2 messages of mail\n"
    done = cli.run("cancel", "mail", "2", "1", "--json")
    assert (done.code, done.json) == (0, {"queue": "mail", "cancelled": 1})
    assert done.err == "stiqueue: 1 message of mail not dropped: held by a consumer, or not there\n"
    done = cli.run("cancel", "mail", "2")
    assert (done.code, done.text) == (3, "cancelled 0 messages of mail\n")


def test_a_message_is_rescheduled(cli: Cli, client: SQClient) -> None:
    message_id = client.enq("a", queue="mail", delay=60)
    assert cli.ok("reschedule", "mail", str(message_id), "2h").text == "message 1 of mail is ready in 7200 s\n"
    (message,) = client.peek_messages(queue="mail", state=State.DELAYED)
    assert message.id == message_id
    assert cli.ok("reschedule", "mail", "1", "0", "--json").json == {"queue": "mail", "id": 1, "delay": 0.0}
    assert client.deq(timeout=0, queue="mail") == b"a"
    assert cli.fails(3, "reschedule", "mail", "77", "0") == "stiqueue: message 77 is not in mail"
    assert "is leased" in cli.fails(1, "reschedule", "mail", "1", "0")
