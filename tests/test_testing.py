"""What is shipped for the tests of users: as docs/testing.md tells it, and where it could be in the way."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.waiting import Call, run_python, until

from stiqueue import SQClient
from stiqueue.testing import FakeClock, serving

ROOT = Path(__file__).parents[1]
CONFTEST, TESTS, PLAIN = re.findall(r"```python\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.S)
(OUTPUT,) = re.findall(r"```text\n(.*?)```", (ROOT / "docs/testing.md").read_text(), re.S)


@pytest.mark.slow
def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(CONFTEST)
    (tmp_path / "test_mine.py").write_text(TESTS)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_the_program_of_the_page_prints_what_it_says() -> None:
    done = run_python("import warnings; warnings.simplefilter('error')\n" + PLAIN)
    assert (done.stdout, done.stderr) == (OUTPUT, "")


def test_pytest_is_not_needed() -> None:
    program = """
import sys
sys.modules["pytest"] = None  # as if it were not installed
from stiqueue.testing import FakeClock, serving
with serving() as server:
    print(server.port > 0)
"""
    done = run_python(program)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_servers_do_not_get_into_each_others_way() -> None:
    with serving() as one, serving(max_attempts=3) as other:
        assert one.port != other.port
        with SQClient(port=one.port) as client, SQClient(port=other.port) as stranger:
            client.enq("a")
            assert stranger.cnt() == 0


def test_a_lease_and_a_ttl_live_by_the_clock() -> None:
    clock = FakeClock()
    client = clock.client(ack_timeout=60)
    other = clock.client(share=client)
    client.enq("a")
    client.enq("mortal", ttl=30)
    message = client.deq(timeout=0)
    assert message is not None
    clock.advance(59)
    assert (other.counts().expired, other.counts().requeued) == (1, 0)
    clock.advance(1)
    assert other.counts().requeued == 1
    assert message.ack() is False
    assert other.deq(timeout=0) == b"a"
    client.close()
    other.close()
    clock.close()


def test_a_deq_that_waits_gets_what_falls_due() -> None:
    clock = FakeClock()
    client = clock.client()
    client.enq("later", delay=3600)
    waiting = Call(client.deq)
    until(lambda: client.counts().consumers, 1)
    clock.advance(3600)
    assert waiting.result() == b"later"
    client.close()
    clock.close()
