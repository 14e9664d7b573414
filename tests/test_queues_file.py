"""The file of settings: what it may say, every mistake, and that a changed one is read again."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support.waiting import until

from stiqueue import QueueSettings, SQClient, SQServer
from stiqueue.errors import InvalidRequest, SettingFixed, StiQueueError
from stiqueue.server.queues_file import read

GOOD = """
# What the mailers may do.
["mail.*"]
max_leased = 1
max_attempts = 3
ttl = 3600
ack_timeout = 30.5
dead_letter_queue = "all.dead"

[default]
paused = true
max_messages = 1_000
max_bytes = 0
"""


def test_a_file_says_what_holds_for_which_queue(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(GOOD)
    assert read(file) == [
        QueueSettings("mail.*", max_leased=1, max_attempts=3, ttl=3600, ack_timeout=30.5, dead_letter_queue="all.dead"),
        QueueSettings("default", paused=True, max_messages=1000, max_bytes=0),
    ]
    file.write_text("")
    assert read(file) == []


MISTAKES = {
    "no TOML": ("[default", "is not TOML: "),
    "a number without end": ("[a]\nmax_leased = " + "9" * 5_000, "is not TOML: "),
    "brackets without end": ("x = " + "[" * 100_000, "is not TOML: "),
    "a setting twice": ("[a]\nttl = 1\nttl = 2", "is not TOML: "),
    "a table twice": ("[a]\n[a]", "is not TOML: "),
    "a table twice, by two names": ('[""]\n[default]', "two tables for default"),
    "no table": ("max_leased = 5", "it stands outside a table; write it below the name of a queue"),
    "a name without quotes": ("[mail.new]\nttl = 1", 'new is a table; write the name with quotes: ["mail.new"]'),
    "a bad name": ('["a b"]', "queue: 'a b' is not 1 to 128 of"),
    "a bad pattern": ('["a?*"]', "queue: 'a?*' is not 1 to 128 of"),
    "a setting misspelt": ("[a]\nmax_lease = 5", "'max_lease' is not a setting; did you mean max_leased?"),
    "no setting": ("[a]\nx = 5", "'x' is not a setting; they are paused, max_attempts, "),
    "an end of a pause": ("[a]\npaused = true\nresume_after = 5", "'resume_after' is not a setting"),
    "a list of tables": ("[[a]]\nttl = 5", "it stands outside a table"),
    "text for a number": ('[a]\nmax_leased = "5"', "max_leased: '5' is not a whole number"),
    "a fraction": ("[a]\nmax_leased = 1.5", "max_leased: 1.5 is not a whole number"),
    "a number for a flag": ("[a]\npaused = 1", "paused: 1 is of type int; write True or False"),
    "text for a duration": ('[a]\nttl = "1h"', "ttl: '1h' is not a number of seconds"),
    "a date for a duration": ("[a]\nttl = 1979-05-27", "ttl: datetime.date(1979, 5, 27) is not a number of seconds"),
    "not a number": ("[a]\nttl = nan", "ttl: nan s is not within"),
    "a number below its range": ("[a]\nmax_attempts = -1", "max_attempts: -1 is not within 0 to 1000000"),
    "a number above its range": ("[a]\nmax_attempts = 1000001", "max_attempts: 1000001 is not within 0 to 1000000"),
    "a duration below its range": ("[a]\nack_timeout = 0.001", "ack_timeout: 0.001 s is not within 0.01"),
    "a duration above its range": ("[a]\nttl = 1e12", "ttl: 1e+12 s is not within"),
    "a dead letter queue that is none": ('[a]\ndead_letter_queue = "b"', "'b' does not end with .dead"),
    "a dead letter queue with a bad name": ('[a]\ndead_letter_queue = "b c.dead"', "is not 1 to 128 of"),
}


@pytest.mark.parametrize(("text", "said"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_server_does_not_start_on_a_mistake(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(text)
    with pytest.raises(InvalidRequest) as caught:
        SQServer(port=0, queues=str(file))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"queues: {file}")
    assert caught.value.reason == "BAD_OPTION"


def test_a_server_does_not_start_without_its_file(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"queues: cannot read .*: No such file"):
        SQServer(port=0, queues=str(tmp_path / "none.toml"))
    file = tmp_path / "queues.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(InvalidRequest, match="is not UTF-8"):
        SQServer(port=0, queues=str(file))


def test_what_the_file_says_holds_and_cannot_be_changed(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text(GOOD)
    with SQServer(port=0, queues=str(file)) as server, SQClient(port=server.port) as client:
        client.enq("a")
        assert client.deq(timeout=0) is None
        with pytest.raises(SettingFixed, match="paused: the server's settings file sets it for default"):
            client.resume()
        with pytest.raises(SettingFixed, match=r"max_leased: the server's settings file sets it for mail\.\*"):
            client.configure(queue="mail.new", max_leased=5, max_bytes=5)
        assert client.all_settings().settings == []
        client.configure(queue="mail.new", max_bytes=5)
        client.configure(queue="*", max_leased=9)
        assert client.settings(queue="mail.new").max_leased == 1
        assert client.settings(queue="other").max_leased == 9
        assert [each.queue for each in client.all_settings().fixed] == ["default", "mail.*"]


def test_a_changed_file_is_in_force_without_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "queues.toml"
    file.write_text("[default]\npaused = true")
    with SQServer(port=0, queues=str(file)) as server, SQClient(port=server.port) as client:
        client.enq("a")
        assert client.deq(timeout=0) is None
        file.write_text("")
        assert client.deq() == b"a"
        assert client.all_settings().fixed == []


@pytest.mark.slow
@pytest.mark.parametrize("mistake", ["[default", "[default]\npaused = 7", None])
def test_a_mistake_in_a_changed_file_changes_nothing_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mistake: str | None
) -> None:
    file = tmp_path / "queues.toml"
    file.write_text("[default]\nmax_leased = 3")
    with SQServer(port=0, queues=str(file)) as server, SQClient(port=server.port) as client:
        with caplog.at_level(logging.INFO, "stiqueue"):
            if mistake is None:
                file.unlink()
            else:
                file.write_text(mistake)
            until(lambda: any("the settings stay as they were" in each.getMessage() for each in caplog.records))
        assert client.settings().max_leased == 3
        file.write_text("[default]\nmax_leased = 4")
        until(lambda: client.settings().max_leased, 4)


def test_a_cluster_reads_no_file_of_settings(tmp_path: Path) -> None:
    pytest.importorskip("nats")
    file = tmp_path / "queues.toml"
    file.write_text(GOOD)
    server = SQServer(port=0, queues=str(file), engine="nats://127.0.0.1:1")
    with pytest.raises(StiQueueError, match="queues: a cluster keeps the settings of queues itself"):
        server.start()
