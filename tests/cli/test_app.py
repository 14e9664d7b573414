"""The command as a whole: help, exit codes, completion, the server, and a library without the extra."""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from rich.console import Console

from stiqueue import SQClient, __version__, settings
from stiqueue.cli.app import app
from stiqueue.cli.codes import MEANINGS, ExitCode, exit_code
from stiqueue.cli.tables import Column, plain_table, table
from stiqueue.errors import AccessDenied, InvalidRequest, QueueFull, StoreDamaged, TooManyConsumers, Unavailable
from tests.cli.conftest import ROOT, Cli, posix
from tests.support.waiting import PATIENCE, run_python

# -- help and exit codes ----------------------------------------------------------------------------------------------


def test_help_names_every_command_and_exit_code(nobody: Cli) -> None:
    shown = nobody.ok("--help").text
    for name in app.commands:
        assert f"\n  {name} " in shown
        assert nobody.ok(name, "--help").text.startswith(f"Usage: stiqueue {name} ")
    for code in ExitCode:
        assert re.search(rf"\n +{code}  {re.escape(MEANINGS[code])}\n", shown)


@pytest.mark.parametrize("name", ["enq", "deq", "consume", "peek", "completion"])
def test_help_shows_examples_line_by_line(nobody: Cli, name: str) -> None:
    shown = nobody.ok(name, "--help").text
    assert "\\b" not in shown
    assert re.search(r"^    (stiqueue |bash: )", shown, re.MULTILINE)


def test_without_a_command_help_is_shown_and_it_is_an_error(nobody: Cli) -> None:
    done = nobody.run()
    assert (done.code, done.out) == (2, b"")
    assert done.err.startswith("Usage: stiqueue ")


def test_the_version_is_told(nobody: Cli) -> None:
    assert nobody.ok("--version").text == nobody.ok("-V").text == f"StiQueue {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["frob"], ["No such command 'frob'", "(see `stiqueue --help`)"]),
        (["--prot", "5", "cnt"], ["No such option", "--prot", "(see `stiqueue --help`)"]),
        (["cnt", "--prot", "5"], ["No such option", "--prot", "--port", "(see `stiqueue cnt --help`)"]),
        (["cnt", "--port"], ["Option '--port' requires an argument"]),
        (["cnt", "extra"], ["Got unexpected extra argument", "(see `stiqueue cnt --help`)"]),
    ],
)
def test_a_wrong_command_line_is_told_in_one_line(nobody: Cli, arguments: list[str], told: list[str]) -> None:
    line = nobody.fails(2, *arguments)
    assert [part for part in told if part not in line] == []


def test_the_environment_names_the_server_and_options_win(cli: Cli, nobody: Cli) -> None:
    assert cli.ok("cnt").text == "0\n"
    assert nobody.ok("cnt", "--port", str(cli.port)).text == "0\n"
    cli.environment["STIQUEUE_PORT"] = "many"
    assert "'many' is not a valid integer" in cli.fails(2, "cnt")


def test_options_may_stand_before_the_command(cli: Cli, nobody: Cli) -> None:
    before = ["--port", str(cli.port), "--queue", "enq"]  # a value that is the name of a command
    assert nobody.ok(*before, "enq", "a").text == "enqueued 1 message in enq, id 1\n"
    assert nobody.ok(*before, "--json", "peek", "--count=1").json["body"] == "a"
    assert nobody.ok(f"--port={cli.port}", "-q", "enq", "cnt").text == "1\n"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Unavailable(), ExitCode.UNAVAILABLE),
        (InvalidRequest(), ExitCode.USAGE),
        (QueueFull(), ExitCode.FULL),
        (TooManyConsumers(), ExitCode.FULL),
        (AccessDenied(), ExitCode.DENIED),
        (StoreDamaged(), ExitCode.FAILED),
        (OSError(), ExitCode.FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: ExitCode) -> None:
    assert exit_code(error) == code


@posix
def test_a_reader_that_goes_away_is_no_error_to_speak_of(cli: Cli, client: SQClient) -> None:
    client.enq_many("x" * 100 for _ in range(10_000))
    done = cli.shell("stiqueue peek -n 0 | head -1; echo ${PIPESTATUS[0]}")
    assert (done.lines[0].split("\t")[0], done.lines[-1], done.err) == ("id", "141", "")


# -- without the extra ------------------------------------------------------------------------------------------------


PLAIN = [sys.executable, "-c", "import sys; sys.modules['rich'] = None; from stiqueue.cli import main; main()"]
"""The command where the extra `cli` is not installed."""


@posix
def test_without_the_extra_a_terminal_shows_a_plain_table(cli: Cli, client: SQClient) -> None:
    client.enq("x", queue="mail")
    code, shown = cli.on_terminal(command=[*PLAIN, "queues"])
    head, row = shown.splitlines()
    assert (code, "\x1b" in shown) == (0, False)
    assert head.split()[:4] == ["queue", "ready", "leased", "delayed"]
    assert row.split()[:2] == ["mail", "1"]


@pytest.mark.parametrize("width", [24, 60, 100])
def test_the_plain_table_is_that_of_the_extra_without_colours(width: int) -> None:
    columns = [
        Column("id"),
        Column("name", "queue", style=lambda name: "red", right=False, flexible=True),
        Column("headers", right=False, extra=True),
        Column("body", right=False, flexible=True),
    ]
    rows = [
        {"id": 7, "name": "mail", "headers": "to=ann@example.org", "body": "x" * 200},
        {"id": 12, "name": "a-queue-with-a-rather-long-name", "headers": "", "body": "\x1b[2J"},
    ]
    rich = Console(file=io.StringIO(), width=width)
    with rich.capture() as shown:
        rich.print(table(columns, rows, width))
    assert plain_table(columns, rows, width) == "".join(f"{line.rstrip()}\n" for line in shown.get().splitlines())


@posix
def test_without_the_extra_top_prints_table_after_table(cli: Cli, client: SQClient) -> None:
    client.enq("x", queue="mail")
    code, shown = cli.on_terminal(command=[*PLAIN, "top", "-n", "2", "--interval", "0.01"])
    assert code == 0
    assert "\x1b" not in shown
    assert shown.count("queue ") == shown.count("mail ") == 2


@posix
def test_without_the_extra_long_work_shows_no_bar(cli: Cli, client: SQClient) -> None:
    code, shown = cli.on_terminal(command=["sh", "-c", 'seq 100000 | "$0" "$@"', *PLAIN, "enq"])
    assert (code, "\x1b" in shown) == (0, False)
    assert shown.startswith("enqueued 100,000 messages in default")
    assert client.cnt() == 100_000


def test_the_library_does_without_the_extra() -> None:
    program = "import sys; sys.modules['click'] = sys.modules['rich'] = None; import stiqueue; print(stiqueue.SQServer)"
    done = run_python(program, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_rich_is_loaded_only_for_people() -> None:
    program = (
        "import sys, stiqueue.cli.app as cli\n"
        "try: cli.app(['cnt', '--help'])\n"
        "except SystemExit: print('rich' in sys.modules, 'stiqueue.sqserver' in sys.modules)"
    )
    assert run_python(program, cwd=ROOT).stdout.splitlines()[-1] == "False False"


# -- serve ------------------------------------------------------------------------------------------------------------


def test_serve_has_the_options_of_the_server(nobody: Cli) -> None:
    shown = nobody.ok("serve", "--help").text
    theirs = run_python("import sys; from stiqueue import sqserver; sqserver.main(['--help'])", cwd=ROOT).stdout
    options = set(re.findall(r"--[a-z-]+", theirs))
    assert len(options) > 15
    assert options <= set(re.findall(r"--[a-z-]+", shown))


@contextmanager
def serving(cli: Cli, *arguments: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """Start a server on a free port; yield its process and its port."""
    with cli.start("serve", "--port", "0", *arguments) as process:
        assert process.stderr is not None
        line = process.stderr.readline().decode()
        found = re.search(r" on 127\.0\.0\.1:(\d+), ", line)
        assert found, line
        yield process, int(found[1])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_serves_until_it_is_stopped(nobody: Cli, tmp_path: Path, number: signal.Signals) -> None:
    options = ["--data", str(tmp_path / "queue.db")]
    with serving(nobody, *options) as (process, port):
        assert Cli(port).ok("enq", "x").text == "enqueued 1 message in default, id 1\n"
        process.send_signal(number)
        assert process.wait(PATIENCE) == 0
    with serving(nobody, *options) as (process, port):
        assert Cli(port).ok("deq", "--timeout", "0").text == "x\n"


def test_serve_takes_options_and_the_environment(nobody: Cli) -> None:
    nobody.environment["STIQUEUE_MAX_MESSAGES"] = "2"
    with serving(nobody, "--data", ":memory:", "--no-ack-required", "--debug") as (_, port):
        here = Cli(port)
        here.ok("enq", "a", "b")
        assert "max_messages is 2" in here.fails(5, "enq", "c")
        with SQClient(port=port) as client:
            assert client.deq(0) == b"a"
            assert client.counts().leased == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--port", "70000"], "port: 70000 is not a number within 0 to 65535"),
        (["--port", "x"], "port: 'x' is not a number"),
        (["--prot", "1"], "No such option"),
        (["extra"], "unexpected extra argument"),
    ],
)
def test_serve_tells_what_is_wrong_in_one_line(nobody: Cli, arguments: list[str], told: str) -> None:
    assert told in nobody.fails(2, "serve", *arguments)


def test_serve_cannot_have_a_port_that_is_taken(cli: Cli, tmp_path: Path) -> None:
    done = cli.process("serve", "--port", str(cli.port), "--data", ":memory:")
    assert done.code == 1
    assert f"cannot listen on 127.0.0.1:{cli.port}" in done.err.splitlines()[-1]


def test_every_setting_is_an_option() -> None:
    (serve,) = (command for name, command in app.commands.items() if name == "serve")
    names = {parameter.name for parameter in serve.params}
    assert set(settings.Settings.__slots__) <= names


# -- completion -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@posix
def test_bash_completes_commands_options_and_queues(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    for queue in ("mail", "main", "other"):
        client.enq("x", queue=queue)
    # The script calls the command through env, which knows no shell functions.
    command = tmp_path / "stiqueue"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m stiqueue "$@"\n')
    command.chmod(0o755)

    def complete(*words: str) -> list[str]:
        done = cli.shell(
            f'unset -f stiqueue; PATH={tmp_path}:$PATH; eval "$(stiqueue completion bash)"; '
            f"COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _stiqueue_completion stiqueue; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        assert (done.code, done.err) == (0, "")
        return done.lines

    assert complete("stiqueue", "pe") == ["peek"]
    assert complete("stiqueue", "peek", "--st") == ["--state"]
    assert complete("stiqueue", "peek", "--state", "le") == ["leased"]
    assert complete("stiqueue", "cnt", "--queue", "ma") == ["mail", "main"]


@pytest.mark.parametrize(
    ("shell", "part"),
    [("bash", "complete -o nosort -F"), ("zsh", "#compdef stiqueue"), ("fish", "complete --no-files")],
)
def test_there_is_a_completion_for_each_shell(nobody: Cli, shell: str, part: str) -> None:
    assert part in nobody.ok("completion", shell).text


def test_completion_knows_no_other_shell(nobody: Cli) -> None:
    assert "'csh' is not one of 'bash', 'zsh', 'fish'" in nobody.fails(2, "completion", "csh")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--host", "localhost:1234"], 'host: .*write host="localhost", port=1234'),
        (["--host", "[::1]"], 'host: .*write host="::1"'),
        (["--timeout", "inf"], "'inf' is not a duration"),
        (["--timeout", "nan"], "'nan' is not a duration"),
        (["--timeout", "1e10"], "'1e10' is not a duration"),
        (["--timeout", "9" * 400], "inf seconds are more than"),
        (["--timeout", "-1"], "'-1' is not a duration"),
        (["--timeout", ""], "'' is not a duration"),
    ],
)
def test_an_address_or_a_duration_that_is_none_is_one_line(cli: Cli, option: list[str], words: str) -> None:
    assert re.search(words, cli.fails(2, "cnt", *option))
