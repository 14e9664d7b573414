"""What a type checker says about programs of users: the README's examples are right, common mistakes are not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")  # the environment with the lowest versions has none

ROOT = Path(__file__).parents[1]
PAGES = "".join((ROOT / page).read_text() for page in ("README.md", "docs/options.md"))
PROGRAMS = re.findall(r"```python\n(.*?)```", PAGES, re.S)

RIGHT = """
from asyncio import Future as AsyncFuture
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future
from typing_extensions import assert_type

from stiqueue import AsyncSQClient, LocalSQClient, Message, SQClient, Worker
from stiqueue.aio import AsyncMessage


def threads(client: SQClient, local: LocalSQClient, seconds: float | None) -> Iterator[Message]:
    assert_type(client.enq_soon("a"), Future[int])
    assert_type(local.enq_soon("a", priority=1).result(), int)
    client.flush(timeout=1)
    assert_type(client.deq(), Message)
    assert_type(client.deq(None), Message)
    assert_type(client.deq(queue="jobs"), Message)
    assert_type(client.deq(timeout=None, queue="jobs"), Message)
    assert_type(client.deq(1), Message | None)
    assert_type(client.deq(timeout=0.5), Message | None)
    assert_type(client.deq(seconds), Message | None)
    assert_type(local.deq(), Message)
    assert_type(local.deq(timeout=0), Message | None)
    assert_type(client.enq("a"), int)
    yield from client.consume(timeout=0)


async def tasks(client: AsyncSQClient, seconds: float | None) -> AsyncIterator[AsyncMessage]:
    assert_type(await client.deq(), AsyncMessage)
    assert_type(await client.deq(queue="jobs"), AsyncMessage)
    assert_type(await client.deq(timeout=1), AsyncMessage | None)
    assert_type(await client.deq(seconds), AsyncMessage | None)
    assert_type(await client.enq("a"), int)
    assert_type(await client.enq_soon("a"), AsyncFuture[int])
    await client.flush()
    async for message in client.consume():
        yield message


def work(message: Message) -> None:
    print(message.decode(), message.headers["size"])


Worker(work, "jobs", threads=4, host="localhost", timeout=5).run()
"""

WRONG = """
from stiqueue import AsyncSQClient, LocalSQClient, SQClient

client = SQClient()
client.deq(timeout=1).decode()  # it can be None
LocalSQClient().deq(0).decode()  # it can be None
SQClient(hots="localhost")  # no such argument
AsyncSQClient(hots="localhost")  # no such argument
client.enq("a", delay="5")  # not text
client.enq("a", headers={"n": 1})  # not text
client.deq("jobs")  # not a number
"""


def checked(program: Path) -> str:
    """Check a program as a user would, who has installed the package; return what mypy says."""
    environment = {name: text for name, text in os.environ.items() if not name.startswith("MYPY")}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file=", "--no-error-summary", str(program)]
    done = subprocess.run(
        command, cwd=program.parent, env=environment, capture_output=True, text=True, timeout=170, check=False
    )
    assert done.stderr == ""
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(360)
def test_the_examples_of_the_readme_pass_mypy_strict(tmp_path: Path) -> None:
    assert len(PROGRAMS) > 2
    everything = tmp_path / "programs.py"
    # Each in a function of its own, for they use the same names.
    bodies = ["".join(f"    {line}\n" for line in program.splitlines()) for program in PROGRAMS]
    examples = "".join(f"def program_{number}() -> None:\n{body}\n\n" for number, body in enumerate(bodies))
    everything.write_text(RIGHT + "\n\n" + examples)
    assert checked(everything) == ""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    found = {int(line) for line in re.findall(r"^wrong\.py:(\d+): error: ", checked(wrong), re.M)}
    assert found == {number for number, line in enumerate(WRONG.splitlines(), 1) if "  # " in line}
