"""Whatever a server has can be exported, imported, moved and redriven: its limits hold for what it makes itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stiqueue import AsyncSQClient, InvalidRequest, LocalSQClient, SQClient, SQServer, State
from stiqueue.client.move import STAGING_SUFFIX
from stiqueue.limits import (
    DAY,
    MAX_HEADERS,
    MAX_HEADERS_BYTES,
    MAX_NAME,
    MAX_OWN_HEADERS_BYTES,
    MAX_REASON_BYTES,
    MESSAGE_ROOM,
    dead_letter_queue,
    suffixed,
)
from stiqueue.message import DEAD_REASON_HEADER, DEAD_SUFFIX, STAGING_HEADER
from tests.cli.conftest import Cli

FULL = {f"{number:02}": "x" * (MAX_HEADERS_BYTES // MAX_HEADERS - 2) for number in range(MAX_HEADERS)}
"""As many and as long headers as a message may have."""
LARGEST = bytes((4 << 20) - MESSAGE_ROOM - MAX_HEADERS_BYTES)
"""The longest body that may have them."""
REASON = "x" * MAX_REASON_BYTES
LONG_NAMES = [letter * length for length in range(MAX_NAME - 7, MAX_NAME + 1) for letter in "ab"]


@pytest.fixture
def other() -> Iterator[SQClient]:
    """A client of another server."""
    with SQServer(port=0) as server, SQClient(port=server.port) as client:
        yield client


@pytest.fixture
def dead(client: SQClient) -> str:
    """The dead letter of a message that was as large as one may be; the queue that it is in."""
    client.enq(LARGEST, queue="mail", headers=FULL)
    message = client.deq(timeout=5, queue="mail")
    assert message is not None
    assert message.dead_letter(REASON)
    return "mail.dead"


def test_the_largest_dead_letter_is_imported(
    cli: Cli, client: SQClient, dead: str, other: SQClient, tmp_path: Path
) -> None:
    file = str(tmp_path / "backup.jsonl")
    cli.ok("export", file)
    assert Cli(other.port).ok("import", file).text == "imported 1 message\n"
    (letter,), (copy,) = client.peek_messages(queue=dead), other.peek_messages(queue=dead)
    assert (copy, copy.headers) == (letter, letter.headers)
    assert len(copy.headers) == MAX_HEADERS + 3


def test_the_largest_dead_letter_is_moved_and_redriven(cli: Cli, client: SQClient, dead: str, other: SQClient) -> None:
    cli.ok("move", "--queue", dead, f"127.0.0.1:{other.port}")
    assert (client.queues(), other.cnt(queue=dead)) == ({}, 1)
    assert other.redrive(queue="mail") == 1
    (message,) = other.peek_messages(queue="mail")
    assert (message, message.headers) == (LARGEST, FULL)


def test_the_largest_dead_letter_that_a_move_left_in_the_middle(
    cli: Cli, client: SQClient, dead: str, other: SQClient
) -> None:
    (letter,) = client.peek_messages(queue=dead)
    headers = {**letter.headers, STAGING_HEADER: f"{'f' * 32} 0"}
    client.enq(letter, queue=suffixed(dead, STAGING_SUFFIX), headers=headers)
    client.purge(queue=dead)
    cli.run("move", "--queue", dead, f"127.0.0.1:{other.port}")
    assert [each.headers for each in other.peek_messages(queue=dead)] == [letter.headers]


def test_headers_of_ours_are_bounded_as_well(client: SQClient) -> None:
    with pytest.raises(InvalidRequest, match="stiqueue-dead-reason are above the limit of 2,048"):
        client.enq("x", headers={DEAD_REASON_HEADER: "x" * MAX_OWN_HEADERS_BYTES})
    with pytest.raises(InvalidRequest, match="65 are above the limit of 64"):
        client.enq("x", headers={**FULL, "one more": ""})


# -- long names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["server", "local"])
def test_every_name_of_a_queue_has_a_dead_letter_queue_to_redrive(client: SQClient, where: str) -> None:
    used = LocalSQClient() if where == "local" else client
    for name in LONG_NAMES:
        used.enq(name, queue=name)
        message = used.deq(timeout=5, queue=name)
        assert message is not None
        assert message.dead_letter()
    assert set(used.queues()) >= set(map(dead_letter_queue, LONG_NAMES))
    for name in LONG_NAMES:
        assert used.cnt(queue=name) == 0
        assert used.redrive(queue=name) == 1
        assert [bytes(each) for each in used.peek_messages(queue=name)] == [name.encode()], "it came from elsewhere"


def test_tasks_redrive_long_names_too(server: SQServer) -> None:
    async def redrive() -> tuple[int, int]:
        async with AsyncSQClient(port=server.port, queue="a" * MAX_NAME) as client:
            await client.enq("x")
            message = await client.deq(timeout=5)
            assert message is not None
            await message.dead_letter()
            return await client.redrive(), await client.cnt()

    assert asyncio.run(redrive()) == (1, 1)


def test_the_command_redrives_and_moves_long_names(cli: Cli, client: SQClient, other: SQClient) -> None:
    for name in LONG_NAMES:
        client.enq(name, queue=name)
        message = client.deq(timeout=5, queue=name)
        assert message is not None
        assert message.dead_letter()
        assert cli.ok("redrive", "--queue", name).text == f"moved 1 message from {dead_letter_queue(name)}\n"
        cli.ok("move", "--queue", name, f"127.0.0.1:{other.port}")
        assert [bytes(each) for each in other.peek_messages(queue=name)] == [name.encode()]


def test_a_dead_letter_queue_with_a_long_name_is_not_its_own(client: SQClient) -> None:
    """Redriven into itself it would never be empty."""
    name = "a" * (MAX_NAME - len(DEAD_SUFFIX)) + DEAD_SUFFIX
    client.enq("x", queue=name)
    assert client.redrive(queue=name) == 0


def test_names_that_share_their_beginning_share_no_other_queue() -> None:
    for suffix in (DEAD_SUFFIX, STAGING_SUFFIX):
        names = {suffixed(name, suffix) for name in ("a" * MAX_NAME, "a" * (MAX_NAME - 1), "a" * (MAX_NAME - 1) + "b")}
        assert len(names) == 3
        assert {len(name) for name in names} == {MAX_NAME}
        assert suffixed("a" * (MAX_NAME - len(suffix)), suffix) == "a" * (MAX_NAME - len(suffix)) + suffix


# -- clocks that differ -----------------------------------------------------------------------------------------------


def test_a_clock_that_is_behind_makes_no_time_too_long(cli: Cli, client: SQClient, tmp_path: Path) -> None:
    """The longest delay and the longest ttl, exported where it was a minute later."""
    ahead_ms = int(time.time() * 1000) + 60_000
    rows = [
        {"id": 1, "ready_time_ms": ahead_ms + int(366 * DAY * 1000)},
        {"id": 2, "expire_time_ms": ahead_ms + int(3_660 * DAY * 1000)},
    ]
    file = tmp_path / "backup.jsonl"
    file.write_text("".join(json.dumps({"queue": "q", "enqueue_time_ms": 1, "body": "", **row}) + "\n" for row in rows))
    assert cli.ok("import", str(file)).text == "imported 2 messages\n"
    assert [each.id for each in client.peek_messages(queue="q", state=State.DELAYED)] == [1]
