"""`stiqueue cron`."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

import pytest

from stiqueue import SQClient
from tests.cli.conftest import Cli, rest
from tests.support.ports import free_port
from tests.support.waiting import PATIENCE, until

JOBS = """
[[entry]]
name = "leap"
cron = "0 12 29 2 *"
timezone = "Europe/Berlin"
queue = "jobs"
body = "leap"

[[entry]]
name = "beat"
every = "1s"
queue = "beats"
body = "beat"
"""


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.toml"
    path.write_text(JOBS)
    return path


def test_list_shows_the_next_runs(nobody: Cli, jobs: Path) -> None:
    jobs.write_text(JOBS.replace('every = "1s"', 'cron = "0 0 1 1 *"'))
    done = nobody.ok("cron", str(jobs), "--list", "-n", "8", "--json")
    found = [each for each in done.jsons if each["name"] == "leap"]
    assert found[0]["time"][4:] == "-02-29T11:00:00Z"
    assert found[0]["local"].endswith("-02-29 12:00:00 +0100")
    assert (found[0]["queue"], found[0]["times"]) == ("jobs", "0 12 29 2 * Europe/Berlin")
    assert len(done.jsons) == 8
    assert nobody.ok("cron", str(jobs), "--list").lines[0] == "time\tlocal\tname\tqueue\ttimes"


def test_every_mistake_is_a_line_and_nothing_is_enqueued(cli: Cli, client: SQClient, jobs: Path) -> None:
    jobs.write_text(JOBS.replace("29 2", "30 2").replace("1s", "1x") + "nam = 5\n")
    for arguments in ([], ["--list"]):
        done = cli.run("cron", str(jobs), *arguments)
        assert (done.code, done.out) == (2, b"")
        assert [line.partition("entry ")[2] for line in done.err.splitlines()] == [
            '1 "leap": cron: "0 12 30 2 *": bad day-of-month',
            '2 "beat": nam: there is no such key; did you mean name?',
            "2 \"beat\": every: '1x' is not a duration such as 90, 1.5, 250ms, 5m, 2h or 7d",
        ]
    assert client.queues() == {}
    assert "No such file" in cli.fails(2, "cron", "nowhere.toml")


@pytest.mark.slow
def test_it_enqueues_until_it_is_told_to_stop(cli: Cli, client: SQClient, jobs: Path) -> None:
    port = free_port()
    with cli.start("cron", str(jobs), "--metrics-port", str(port)) as process:
        beats = [client.deq(timeout=PATIENCE, queue="beats") for _ in range(2)]
        assert beats == [b"beat", b"beat"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
            text = answer.read().decode()
        jobs.write_text(JOBS.replace('"beat"\n', '"other"\n').replace('body = "other"', 'body = "changed"'))
        until(lambda: client.deq(timeout=PATIENCE, queue="beats"), b"changed")
        jobs.write_text("[[entry]]\n")
        until(lambda: metric(port, "stiqueue_cron_file_has_mistakes"), 1.0)
        assert client.deq(timeout=PATIENCE, queue="beats") == b"changed"
        process.send_signal(signal.SIGTERM)
        out, err = rest(process)
    assert (process.returncode, out) == (0, b"")
    assert f"2 entries of {jobs}".encode() in err
    assert b"nothing was changed" in err
    assert b"Traceback" not in err
    for line in ('stiqueue_cron_runs_total{entry="beat"} ', 'stiqueue_cron_next_run_timestamp_seconds{entry="leap"} '):
        assert line in text


def metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE) as answer:
        lines = answer.read().decode().splitlines()
    return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


def test_an_absent_server_is_waited_for_and_a_signal_ends_that(nobody: Cli, jobs: Path) -> None:
    with nobody.start("cron", str(jobs), "--timeout", "0.2") as process:
        assert process.stderr is not None
        assert b"2 entries" in process.stderr.readline()
        assert b"waiting for the server" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE)
        assert process.returncode == 130


def test_a_port_for_figures_that_is_in_use_is_told(cli: Cli, jobs: Path) -> None:
    told = cli.fails(1, "cron", str(jobs), "--metrics-port", str(cli.port))
    assert "cannot listen on 127.0.0.1" in told
