"""`stiqueue check` and `salvage`, on data files whole, damaged, in use and missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from stiqueue import LocalSQClient, SQServer
from tests.cli.conftest import Cli, posix

COUNT = 2_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A data file with messages in two queues, that nobody holds."""
    path = tmp_path / "queue.db"
    with LocalSQClient(str(path)) as client:
        client.enq_many((b"%d " % number * 20 for number in range(COUNT)), queue="mail")
        client.enq("x", queue="other")
    return path


@pytest.fixture
def damaged(file: Path) -> Path:
    """The same with some of its pages overwritten."""
    with file.open("r+b") as opened:
        opened.seek(file.stat().st_size // 2)
        opened.write(b"\xaa" * 10_000)
    return file


def test_a_good_file_is_good(nobody: Cli, file: Path) -> None:
    before = file.read_bytes()
    assert nobody.ok("check", str(file)).text.startswith(f"{file}: {COUNT + 1} messages in 2 queues, ")
    report = nobody.ok("check", "--json", str(file)).json
    assert (report["good"], report["problems"], report["queues"]) == (True, [], {"mail": COUNT, "other": 1})
    assert (report["path"], report["readable"], report["lost"]) == (str(file), COUNT + 1, 0)
    assert file.read_bytes() == before


@pytest.mark.slow
def test_a_damaged_file_is_told_and_salvaged(nobody: Cli, damaged: Path, tmp_path: Path) -> None:
    before = damaged.read_bytes()
    done = nobody.run("check", str(damaged))
    assert (done.code, done.err) == (1, "")
    assert "can be read" in done.lines[-1]
    done = nobody.run("check", "--json", str(damaged))
    assert (done.code, done.json["good"]) == (1, False)
    readable, lost = done.json["readable"], done.json["lost"]
    assert COUNT // 2 < readable < COUNT + 1
    assert readable + lost == COUNT + 1

    out = tmp_path / "saved.db"
    told = nobody.ok("salvage", str(damaged), str(out)).text
    assert told == f"saved {readable:,} messages in {out}, {lost:,} are lost\n"
    assert damaged.read_bytes() == before
    with SQServer(port=0, data=str(out)) as server:
        assert int(Cli(server.port).ok("cnt", "--queue", "mail").text) == readable - 1
        assert Cli(server.port).ok("deq", "--queue", "other").text == "x\n"


def test_salvage_tells_scripts_what_it_did(nobody: Cli, file: Path, tmp_path: Path) -> None:
    out = str(tmp_path / "saved.db")
    assert nobody.ok("salvage", "--json", str(file), out).json == {
        "out": out,
        "saved": COUNT + 1,
        "lost": 0,
        "lost_is_exact": True,
        "missing_transactions": 0,
    }


def test_salvage_writes_over_nothing(nobody: Cli, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "precious"
    out.write_text("precious")
    assert "exists already" in nobody.fails(1, "salvage", str(file), str(out))
    assert out.read_text() == "precious"


@pytest.mark.parametrize("arguments", [["check"], ["salvage", "out.db"]])
def test_a_file_that_is_not_there_is_told(nobody: Cli, arguments: list[str], tmp_path: Path) -> None:
    name, *others = arguments
    missing = str(tmp_path / "missing.db")
    assert "No such file" in nobody.fails(1, name, missing, *(str(tmp_path / other) for other in others))


@pytest.mark.parametrize("arguments", [["check"], ["salvage", "out.db"]])
def test_a_file_of_another_program_is_told(nobody: Cli, arguments: list[str], tmp_path: Path) -> None:
    name, *others = arguments
    other = tmp_path / "other.db"
    other.write_bytes(b"not one of ours " * 1_000)
    done = nobody.run(name, str(other), *(str(tmp_path / other) for other in others))
    assert done.code == 1
    assert "Traceback" not in done.err


def test_a_file_in_use_is_left_alone(nobody: Cli, file: Path, tmp_path: Path) -> None:
    with SQServer(port=0, data=str(file)):
        nobody.fails(1, "check", str(file))
        nobody.fails(1, "salvage", str(file), str(tmp_path / "out.db"))
    assert not (tmp_path / "out.db").exists()


@pytest.mark.parametrize("arguments", [["check"], ["salvage", "x"], ["check", "a", "b"], ["salvage", "a", "b", "c"]])
def test_bad_input_is_told_in_one_line(nobody: Cli, arguments: list[str]) -> None:
    nobody.fails(2, *arguments)


@posix
def test_work_is_shown_on_a_terminal_and_gone_afterwards(nobody: Cli, file: Path) -> None:
    code, shown = nobody.on_terminal("check", str(file))
    assert code == 0
    assert shown.rstrip().endswith("transactions: good")
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1


def test_a_file_without_its_mark_is_good_as_far_as_is_known(nobody: Cli, file: Path) -> None:
    """As one that `salvage` has made."""
    Path(f"{file}-mark").unlink()
    told = (
        "good; how many are lost is not known: without its mark nothing tells whether later transactions are missing\n"
    )
    assert nobody.ok("check", str(file)).text.endswith(told)
    report = nobody.ok("check", "--json", str(file)).json
    assert (report["lost"], report["lost_is_exact"], report["missing_transactions"]) == (0, False, None)


@pytest.mark.slow
def test_a_loss_is_told_in_the_same_words_by_check_and_salvage(nobody: Cli, damaged: Path, tmp_path: Path) -> None:
    """Without its mark a damaged file may lack more than it knows of."""
    Path(f"{damaged}-mark").unlink()
    done = nobody.run("check", str(damaged))
    lost = nobody.run("check", "--json", str(damaged)).json["lost"]
    words = f"at least {lost} are lost, how many more is not known: without its mark nothing tells whether later"
    assert f"messages can be read, {words} transactions are missing" in done.lines[-1]
    assert words in nobody.ok("salvage", str(damaged), str(tmp_path / "saved.db")).text
