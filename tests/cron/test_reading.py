"""Files of jobs: what they may say, and a mistake of every kind."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stiqueue import InvalidRequest, LocalSQClient, Schedule
from stiqueue.cron import BadSchedule
from stiqueue.cron.entry import Missed
from stiqueue.cron.reading import KEYS, read_entry, read_file

WHOLE = """
marks = "jobs.marks"

[[entry]]
name = "nightly-report"
cron = "30 2 * * mon-fri"
timezone = "Europe/Berlin"
queue = "reports"
body = "all of them: ä"
headers = { to = "ann@example.org" }
priority = 7
key = "ann"
ttl = "2h"
jitter = "90s"
missed = "all"
within = "3d"

[[entry]]
name = "beat"
every = 10
"""


def written(directory: Path, text: str | bytes) -> Path:
    path = directory / "jobs.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def mistakes(directory: Path, text: str | bytes) -> list[str]:
    """Return the mistakes of a file, without its path."""
    path = written(directory, text)
    with pytest.raises(BadSchedule) as caught:
        read_file(path)
    assert isinstance(caught.value, InvalidRequest)
    assert all(each.startswith(f"{path}: ") for each in caught.value.mistakes)
    return [each.removeprefix(f"{path}: ") for each in caught.value.mistakes]


def test_a_file_says_all_of_a_job(tmp_path: Path) -> None:
    file = read_file(written(tmp_path, WHOLE))
    first, second = file.entries
    assert file.marks == "jobs.marks"
    assert first.times.text == "30 2 * * mon-fri Europe/Berlin"
    assert (first.name, first.queue, first.body, first.priority) == (
        "nightly-report",
        "reports",
        "all of them: ä".encode(),
        7,
    )
    assert (first.ttl, first.jitter, first.missed, first.within) == (7_200.0, 90.0, Missed.ALL, 3 * 86_400.0)
    assert first.key == "ann"
    assert first.headers == {"to": "ann@example.org"}
    assert (second.times.text, second.queue, second.body, second.ttl) == ("every 10 s", "default", b"", None)
    assert (second.missed, second.within, second.jitter) == (Missed.ONE, 86_400.0, 0.0)


KINDS = {
    'name = "a b"': "entry 1 \"a b\": name: 'a b' is not 1 to 100 of A-Z a-z 0-9 . _ -",
    "name = 7": 'entry 1: name: 7 is of type int; write a name such as "nightly-report"',
    f'name = "{"n" * 101}"': f'entry 1 "{"n" * 100}": name: \'{"n" * 59}... is not 1 to 100 of A-Z a-z 0-9 . _ -',
    'name = "a"\ncrom = "* * * * *"': 'entry 1 "a": crom: there is no such key; did you mean cron?',
    'name = "a"\ncron = "* * * * 9"': 'entry 1 "a": cron: "* * * * 9": bad day-of-week',
    'name = "a"\ncron = 5': 'entry 1 "a": cron: 5 is of type int; write text such as "0 3 * * *"',
    'name = "a"\ntimezone = "Europe/Brelin"': "entry 1 \"a\": timezone: 'Europe/Brelin' is not known; write a name"
    ' such as "Europe/Berlin"',
    'name = "a"\ntimezone = "/etc/passwd"': "entry 1 \"a\": timezone: '/etc/passwd' is not known; write a name such as"
    ' "Europe/Berlin"',
    'name = "a"\ntimezone = 1': 'entry 1 "a": timezone: 1 is of type int; write a name such as "Europe/Berlin"',
    'name = "a"\nevery = "5s"': 'entry 1 "a": cron, every: both are given; write one of cron = "0 3 * * *" and every ='
    ' "10s"',
    'name = "a"\nqueue = "a b"': "entry 1 \"a\": queue: 'a b' is not 1 to 128 of A-Z a-z 0-9 . _ -",
    'name = "a"\nbody = 5': 'entry 1 "a": body: 5 is of type int; write text',
    'name = "a"\nheaders = { n = 1 }': "entry 1 \"a\": headers['n']: 1 is of type int; write text, as in str(value)",
    'name = "a"\nheaders = "n"': "entry 1 \"a\": headers: 'n' is of type str; write a table such as"
    ' { to = "ann@example.org" }',
    'name = "a"\npriority = 256': 'entry 1 "a": priority: 256 is not within 0 to 255',
    'name = "a"\nkey = 5': 'entry 1 "a": key: 5 is of type int; write str(key)',
    f'name = "a"\nkey = "{"k" * 129}"': 'entry 1 "a": key: 129 bytes are above the limit of 128',
    'name = "a"\nttl = "soon"': "entry 1 \"a\": ttl: 'soon' is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d",
    'name = "a"\nttl = -1': 'entry 1 "a": ttl: -1 s is not within 0.001 to 3.16224e+08 s',
    'name = "a"\njitter = "2d"': 'entry 1 "a": jitter: 172800 s is not within 0 to 86400 s',
    'name = "a"\nmissed = "some"': 'entry 1 "a": missed: \'some\' is none of "none", "one" and "all"',
    'name = "a"\nwithin = "5s"': 'entry 1 "a": within: 5 s is not within 60 to 2.6784e+06 s',
}
EVERY = {
    "every = 0.5": "every: 0.5 s is not within 1 to 3.16224e+07 s",
    "every = 1.5": "every: 1.5 is not a whole number of seconds",
    'every = "weekly"': "every: 'weekly' is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d",
    'every = "5s"\ntimezone = "UTC"': "timezone: it goes with cron; every counts from 1970, in UTC",
    "": 'cron, every: both are missing; write one of cron = "0 3 * * *" and every = "10s"',
}


@pytest.mark.parametrize(("line", "told"), KINDS.items())
def test_a_mistake_is_named(tmp_path: Path, line: str, told: str) -> None:
    rest = "" if "cron" in line else '\ncron = "* * * * *"'
    assert mistakes(tmp_path, f"[[entry]]\n{line}{rest}") == [told]


@pytest.mark.parametrize(("line", "told"), EVERY.items())
def test_a_wrong_interval_is_named(tmp_path: Path, line: str, told: str) -> None:
    assert mistakes(tmp_path, f'[[entry]]\nname = "a"\n{line}') == [f'entry 1 "a": {told}']


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    tables = [f"[[entry]]\n{line}" + ("" if "cron" in line else '\ncron = "* * * * *"') for line in KINDS]
    tables += [f'[[entry]]\nname = "e{number}"\n{line}' for number, line in enumerate(EVERY)]
    text = 'mark = "m"\nmarks = "a b"\n' + "\n\n".join(tables) + '\n[[entry]]\nname = "e1"\nevery = 5'
    found = mistakes(tmp_path, text)
    assert found[0] == "mark: there is no such key; did you mean marks?"
    assert found[1] == "marks: 'a b' is not 1 to 128 of A-Z a-z 0-9 . _ -"
    for number, told in enumerate(KINDS.values(), 1):
        assert told.replace("entry 1", f"entry {number}", 1) in found
    for number, told in enumerate(EVERY.values()):
        assert f'entry {len(KINDS) + number + 1} "e{number}": {told}' in found


def test_names_are_used_once(tmp_path: Path) -> None:
    table = '[[entry]]\nname = "a"\nevery = 5\n'
    assert mistakes(tmp_path, table * 2) == [
        'entry 2 "a": name: another entry has it; runs are told apart by it',
    ]


def test_a_file_without_jobs_or_no_toml_is_refused(tmp_path: Path) -> None:
    assert mistakes(tmp_path, "") == ["it has no job: each is a table that begins with [[entry]]"]
    assert mistakes(tmp_path, "entry = 5") == ["entry: each job is a table that begins with [[entry]]"]
    assert mistakes(tmp_path, "[entry]\nname = 5") == ["entry: each job is a table that begins with [[entry]]"]
    assert "line 2" in mistakes(tmp_path, "[[entry]]\nname = \nevery = 5")[0]
    assert "utf-8" in mistakes(tmp_path, b"\xff")[0]
    assert "recursion" in mistakes(tmp_path, "x = " + "[" * 100_000)[0]
    with pytest.raises(BadSchedule, match="No such file"):
        read_file(tmp_path / "none.toml")


def test_the_two_headers_of_each_run_have_room() -> None:
    headers = {str(number): "" for number in range(62)}
    assert read_entry({"name": "a", "every": 5, "headers": headers}).headers == headers
    with pytest.raises(BadSchedule, match="65 are above the limit of 64"):
        read_entry({"name": "a", "every": 5, "headers": headers | {"one": "more"}})


def test_a_job_added_in_a_program_is_checked_alike() -> None:
    with LocalSQClient() as client:
        schedule = Schedule(client)
        with pytest.raises(BadSchedule) as caught:
            schedule.add("a b", cron="* * * *", priority=-1)
        assert len(caught.value.mistakes) == 3
        assert schedule.entries == []


def test_a_client_that_would_lose_marks_is_refused() -> None:
    with LocalSQClient(ack_required=False) as client, pytest.raises(InvalidRequest, match="would lose marks"):
        Schedule(client)
    with pytest.raises(InvalidRequest, match="write an SQClient or a LocalSQClient"):
        Schedule("jobs.toml")  # type: ignore[arg-type]


def test_the_page_has_every_key_and_a_file_that_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/cron.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page.partition("## The file")[2].partition("\n## ")[0], re.M)) == KEYS
    (text,) = re.findall(r"```toml\n(.*?)```", page, re.S)
    assert [entry.name for entry in read_file(written(tmp_path, text)).entries] == ["nightly-report", "heartbeat"]
