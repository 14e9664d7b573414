"""`stiqueue export` and `import`: what is kept, what is not, and what happens when it is done twice or goes wrong."""

from __future__ import annotations

import json
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stiqueue import LocalSQClient, SQClient, SQServer, State
from stiqueue.client.copy import copied
from tests.cli.conftest import Cli, bodies, posix
from tests.support.waiting import PATIENCE

HOUR_MS = 3_600_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "backup.jsonl"


@pytest.fixture
def other() -> Iterator[SQClient]:
    """A client of an empty server."""
    with SQServer(port=0) as server, SQClient(port=server.port, timeout=10.0) as client:
        yield client


def lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def write(file: Path, *rows: dict[str, Any]) -> None:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def row(number: int, **fields: Any) -> dict[str, Any]:
    return {"queue": "q", "id": number, "enqueue_time_ms": 1_000, "body": "YQ==", **fields}


def test_every_message_is_there_again(cli: Cli, client: SQClient, file: Path, other: SQClient) -> None:
    client.enq("low", queue="a")
    client.enq(bytes(range(256)), queue="a", priority=9, headers={"key": "value", "\xe4": "\N{PARTY POPPER}"})
    client.enq("", queue="a", priority=9)
    client.enq("mortal", queue="b", ttl=3600)
    client.enq("later", queue="b", delay=3600, ttl=7200)
    client.enq("dead", queue="b.dead", headers={"stiqueue-dead-queue": "b"})
    done = cli.ok("export", str(file))
    assert done.text == f"exported 6 messages of 3 queues to {file}\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert {name: counts.ready for name, counts in client.queues().items()} == {"a": 3, "b": 1, "b.dead": 1}

    assert Cli(other.port).ok("import", str(file)).text == "imported 6 messages\n"
    for queue in ("a", "b", "b.dead"):
        before, after = (
            [
                (bytes(each), each.priority, each.headers, each.state)
                for each in place.peek_messages(state=State.ALL, queue=queue)
            ]
            for place in (client, other)
        )
        assert before == after
        for was, now in zip(
            client.peek_messages(state=State.ALL, queue=queue),
            other.peek_messages(state=State.ALL, queue=queue),
            strict=True,
        ):
            assert now.ready_time_ms == pytest.approx(was.ready_time_ms, abs=100)
            assert now.expire_time_ms == pytest.approx(was.expire_time_ms, abs=100)


def test_the_leased_are_there_at_their_old_place(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq_many(["1", "2", "3"])
    message = client.deq(timeout=5)
    assert message == b"1"
    client.enq("0", priority=1)
    assert cli.ok("export", str(file), "--json").json == {"file": str(file), "count": 4, "queues": ["default"]}
    assert [each["id"] for each in lines(file)] == [4, 1, 2, 3]
    assert message.ack(), "it was not taken away"


def test_only_the_queues_that_are_named(cli: Cli, client: SQClient, file: Path) -> None:
    for queue in "abc":
        client.enq("x", queue=queue)
    assert cli.ok("export", "-q", "a", "--queue", "c", "-q", "none", str(file)).text.startswith("exported 2 messages")
    assert [each["queue"] for each in lines(file)] == ["a", "c"]
    assert "is not 1 to 128 of" in cli.fails(2, "export", "-q", "a b", str(file))


def test_an_empty_server_makes_an_empty_file(cli: Cli, file: Path) -> None:
    assert cli.ok("export", str(file)).text == f"exported 0 messages of 0 queues to {file}\n"
    assert cli.ok("import", str(file)).text == "imported 0 messages\n"


@posix
def test_from_server_to_server_through_a_pipe(cli: Cli, client: SQClient, other: SQClient) -> None:
    client.enq_many(str(number) for number in range(5_000))
    done = cli.shell(f"stiqueue export - | stiqueue import --port {other.port} -")
    assert (done.code, done.text) == (0, "imported 5,000 messages\n")
    assert done.err == "stiqueue: exported 5,000 messages of 1 queue\n"
    assert bodies(other) == [b"%d" % number for number in range(5_000)]


def test_repeated_it_enqueues_nothing_twice(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq_many(str(number) for number in range(2_500))
    client.enq("later", delay=3600)
    cli.ok("export", str(file))
    client.purge()
    assert cli.ok("import", str(file)).text == "imported 2,501 messages\n"
    assert cli.ok("import", str(file)).text == "imported 0 messages, 2,501 had been imported before\n"
    assert client.cnt() == 2_500


def test_messages_that_look_the_same_are_not_taken_for_repeated(cli: Cli, client: SQClient, file: Path) -> None:
    """Those of another server, of another time."""
    write(file, row(1))
    cli.ok("import", str(file))
    write(file, row(1, enqueue_time_ms=2_000), row(2))
    assert cli.ok("import", str(file)).text == "imported 2 messages\n"
    assert client.cnt(queue="q") == 3


def test_after_an_error_it_goes_on_where_it_was(file: Path) -> None:
    write(file, *(row(number, priority=number // 10) for number in range(100)))
    with SQServer(port=0, max_messages=45) as server, SQClient(port=server.port, queue="q") as client:
        cli = Cli(server.port)
        told = cli.fails(5, "import", str(file))
        assert told.endswith("; with the first 40 lines done")
        assert client.purge() == 40
        assert "with the first 80 lines done" in cli.fails(5, "import", str(file))
        assert client.purge() == 40
        rest = file.read_bytes().splitlines(keepends=True)[80:]
        assert cli.ok("import", "-", stdin=b"".join(rest)).text == "imported 20 messages\n"


@pytest.mark.slow
def test_requests_are_as_small_as_the_server_wants_them(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq_many(bytes([number]) * 20_000 for number in range(40))
    cli.ok("export", str(file))
    with SQServer(port=0, buff_size=64 << 10) as server, SQClient(port=server.port) as small:
        for text in ("imported 40 messages\n", "imported 0 messages, 40 had been imported before\n"):
            assert Cli(server.port).ok("import", str(file)).text == text
        assert bodies(small) == bodies(client)


def test_a_message_whose_unique_key_is_taken_is_told(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq("old", queue="q", unique_key="k")
    write(file, row(1, unique_key="k"), row(2))
    assert cli.ok("import", str(file)).text == "imported 1 message, 1 left out because their unique keys are taken\n"


def test_a_file_may_have_a_name_that_is_no_utf_8(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    client.enq("a")
    file = f"{tmp_path}/\udcff.jsonl"
    assert cli.ok("export", file).out == f"exported 1 message of 1 queue to {file}\n".encode(errors="surrogateescape")
    assert json.loads(cli.ok("export", "--json", file).out)["file"] == file


def test_what_has_expired_is_left_out(cli: Cli, client: SQClient, file: Path) -> None:
    now_ms = int(time.time() * 1000)
    write(file, row(1, expire_time_ms=now_ms - 1), row(2, expire_time_ms=now_ms + HOUR_MS), row(3, ready_time_ms=1))
    assert cli.ok("import", str(file)).text == "imported 2 messages, 1 had expired\n"
    assert client.cnt(queue="q") == 2


@pytest.mark.parametrize(
    "line",
    [
        "no JSON",
        "[]",
        "{}",
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "?"}',
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "YQ==", "colour": "red"}',
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "YQ==", "priority": "high"}',
        '{"queue": 7, "id": 2, "enqueue_time_ms": 1, "body": "YQ=="}',
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "YQ==", "headers": {"a": 1}}',
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "YQ==", "headers": ["a"]}',
        '{"queue": "q", "id": 2, "enqueue_ti',
        '{"queue": "q", "id": 2, "enqueue_time_ms": 1, "body": "YQ==", "ready_time_ms": 1' + "0" * 400 + "}",
        '{"queue": "q", "id": -2, "enqueue_time_ms": 1, "body": "YQ=="}',
        "[" * 100_000,
    ],
)
def test_a_line_that_is_no_message_is_told(cli: Cli, client: SQClient, file: Path, line: str) -> None:
    file.write_text(f"{json.dumps(row(1, priority=3))}\n{json.dumps(row(2))}\n{line}\n")
    told = cli.fails(1, "import", str(file))
    assert "line 3: not a message of `stiqueue export`" in told
    assert told.endswith("; with the first 1 line done")
    assert client.cnt(queue="q") == 1


def test_a_file_is_replaced_only_by_a_complete_one(nobody: Cli, cli: Cli, file: Path) -> None:
    file.write_text("old")
    nobody.fails(4, "export", str(file), "--timeout", "0.2")
    assert file.read_text() == "old"
    cli.ok("export", str(file))
    assert file.read_text() == ""
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert "No such file" in cli.fails(1, "export", str(file.parent / "none" / "file"))
    assert "does not exist" in cli.fails(2, "import", str(file.parent / "none"))


def test_what_is_taken_while_it_is_copied_is_copied() -> None:
    with LocalSQClient(auto_ack=False) as client:
        client.enq_many(str(number) for number in range(2_500))
        copy = copied(client, "default")
        assert next(copy) == b"0"
        held = [client.deq() for _ in range(2_500)]  # when 1,000 have been looked at
        assert client.cnt() == 0
        assert list(copy) == held[1:]


def test_what_is_given_back_while_it_is_copied_is_copied_once() -> None:
    with LocalSQClient(auto_ack=False) as client:
        client.enq_many(list("abc"))
        message = client.deq()
        assert message is not None
        copy = copied(client, "default")
        assert next(copy) == b"a"
        message.requeue()
        assert [bytes(each) for each in copy] == [b"b", b"c"]


# -- what FILE may be -------------------------------------------------------------------------------------------------


@posix
def test_a_pipe_is_written_to(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq("a")
    os.mkfifo(file)
    with cli.start("export", str(file)) as process:
        assert [json.loads(line)["body"] for line in file.read_text().splitlines()] == ["YQ=="]
        assert process.wait(PATIENCE) == 0
    assert stat.S_ISFIFO(file.lstat().st_mode)


@posix
def test_a_device_is_written_to(cli: Cli, client: SQClient, file: Path) -> None:
    """One that is like /dev/null, and a symbolic link to it."""
    client.enq("a")
    try:
        os.mknod(file, stat.S_IFCHR | 0o600, os.makedev(1, 3))
        file.write_bytes(b"")
    except PermissionError:
        pytest.skip("only root makes devices, where that is allowed")
    link = file.with_name("link")
    link.symlink_to(file)
    for name in (file, link):
        assert cli.ok("export", str(name)).text == f"exported 1 message of 1 queue to {name}\n"
    assert stat.S_ISCHR(file.lstat().st_mode)
    assert link.is_symlink()
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, link.name]


@pytest.mark.slow
@posix
def test_stdout_by_its_other_names(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq("a")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        done = cli.shell(f"stiqueue export {name} --json | head -n 1")
        assert (done.code, done.json["body"]) == (0, "YQ=="), name
    assert cli.shell(f"stiqueue export /dev/fd/3 3> {file} > /dev/null").code == 0
    assert [row["body"] for row in lines(file)] == ["YQ=="]


@posix
@pytest.mark.parametrize("exists", [True, False])
def test_a_symbolic_link_stays_and_its_file_is_replaced(cli: Cli, client: SQClient, file: Path, exists: bool) -> None:
    client.enq("a")
    target = file.with_name("elsewhere")
    if exists:
        target.write_text("old")
    file.symlink_to(target)
    cli.ok("export", str(file))
    assert file.is_symlink()
    assert [row["body"] for row in lines(target)] == ["YQ=="]
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in file.parent.iterdir()) == [file.name, target.name]


@posix
def test_what_is_no_file_and_no_pipe_is_refused(cli: Cli, client: SQClient, file: Path) -> None:
    client.enq("a")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(file))
        assert "is neither a regular file nor" in cli.fails(1, "export", str(file))
        assert stat.S_ISSOCK(file.lstat().st_mode)


@posix
def test_the_part_is_a_new_file(cli: Cli, client: SQClient, file: Path) -> None:
    """What a killed export left is replaced, with its mode; a link at its name is not followed."""
    client.enq("a")
    part = Path(f"{file}.part")
    part.write_text("left")
    part.chmod(0o644)
    cli.ok("export", str(file))
    assert file.stat().st_mode & 0o777 == 0o600
    precious = file.with_name("precious")
    precious.write_text("precious")
    part.symlink_to(precious)
    assert "is in the way" in cli.fails(1, "export", str(file))
    assert precious.read_text() == "precious"
    assert part.is_symlink()
