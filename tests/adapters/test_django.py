"""The backend of Django's tasks and its worker, each in a process: a project's settings are read once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.processes import ServerProcess
from support.waiting import run_python, until

from stiqueue import SQClient

from .conftest import HERE, Begin, Program

PRELUDE = """
import sys, json
sys.path.insert(0, sys.argv[1])
import django
django.setup()
from django_project import tasks
from django_project.tasks import *
from stiqueue.adapters.django.framework import task_backends
"""

Ask = Callable[[str], Any]


@pytest.fixture
def ask(durable: ServerProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run lines of Python in the project; return what they print, from JSON."""
    monkeypatch.setenv("PORT", str(durable.port))
    monkeypatch.setenv("CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "django_project.settings")

    def ask(lines: str) -> Any:
        done = run_python(PRELUDE + lines, HERE)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None

    return ask


@pytest.fixture
def worker(ask: Ask, begin: Begin) -> Callable[..., Program]:
    """Start a worker of the project."""

    def start(*options: str) -> Program:
        return begin("-m", "django", "stiqueue_worker", *options)

    return start


def result(ask: Ask, lines: str) -> dict[str, Any]:
    """Enqueue a task by ``r = ...``, wait until it is finished, and return how it went."""
    found: dict[str, Any] = ask(f"""
import time
{lines}
deadline = time.monotonic() + 30
while not r.is_finished and time.monotonic() < deadline:
    time.sleep(0.02)
    r.refresh()
print(json.dumps({{"status": r.status.value, "value": r._return_value, "attempts": r.attempts,
    "errors": [[e.exception_class_path, e.traceback.splitlines()[-1]] for e in r.errors]}}))
""")
    return found


def test_tasks_run_and_results_are_kept(ask: Ask, worker: Any) -> None:
    program = worker("--threads", "2")
    done = {"status": "SUCCESSFUL", "attempts": 1, "errors": []}
    assert result(ask, "r = mark.enqueue(7)") == {"value": 7, **done}
    assert result(ask, "r = double.enqueue(number=4)") == {"value": 8, **done}
    assert result(ask, "r = attempt.enqueue()") == {"value": 1, **done}
    assert result(ask, "import asyncio; r = asyncio.run(double.aenqueue(5))") == {"value": 10, **done}
    assert program.stop() == 0


def test_a_failed_task_is_a_dead_letter(ask: Ask, worker: Any, observer: SQClient) -> None:
    worker()
    failed = result(ask, "r = fail.enqueue()")
    assert (failed["status"], failed["errors"]) == (
        "FAILED",
        [["builtins.RuntimeError", "RuntimeError: broken"]],
    )
    until(lambda: observer.cnt(queue="shop.default.dead"), 1)
    (letter,) = observer.peek_messages(queue="shop.default.dead")
    assert letter.headers["stiqueue-dead-reason"] == "RuntimeError: broken"


def test_what_is_no_task_is_a_dead_letter(ask: Ask, worker: Any, observer: SQClient) -> None:
    observer.enq("{}", queue="shop.default")
    observer.enq(json.dumps({"task": "os.abort"}), queue="shop.default")
    observer.enq(json.dumps({"task": "this.s"}), queue="shop.default")
    program = worker()
    until(lambda: observer.cnt(queue="shop.default.dead"), 3)
    assert "os.abort is not a task" in program.log
    assert "module 'this' belongs to no installed app" in program.log
    assert "Beautiful" not in program.log  # which the import of `this` writes


def test_a_failure_that_cannot_be_written_is_a_dead_letter(ask: Ask, worker: Any, observer: SQClient) -> None:
    worker()
    assert result(ask, "r = fail_oddly.enqueue()")["status"] == "FAILED"
    until(lambda: observer.cnt(queue="shop.default.dead"), 1)
    (letter,) = observer.peek_messages(queue="shop.default.dead")
    assert letter.headers["stiqueue-dead-reason"] == "Odd: Odd"


def test_a_task_runs_once_while_the_cache_is_away(
    ask: Ask, worker: Any, seen: Callable[[], str], observer: SQClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = tmp_path / "away"
    with monkeypatch.context() as patch:
        patch.setenv("CACHE", str(away))
        program = worker()
    until(lambda: "working on" in program.log)
    away.rmdir()
    away.touch()  # where the cache wants its directory
    ask("mark.enqueue(7)")
    assert seen() == "7"
    until(lambda: observer.counts(queue="shop.default").acked, 1)
    assert program.log.count("is not kept") == 2
    assert observer.cnt(queue="seen") == 0


def test_priority_and_run_after_are_the_servers(ask: Ask, observer: SQClient) -> None:
    ask("""
from datetime import timedelta
from django.utils import timezone
mark.enqueue(1)
mark.using(priority=-100).enqueue(2)
mark.using(priority=100).enqueue(3)
mark.using(run_after=timezone.now() + timedelta(hours=1)).enqueue(4)
""")
    assert [message.priority for message in observer.peek_messages(queue="shop.default")] == [200, 100, 0]
    assert observer.counts(queue="shop.default").delayed == 1


def test_a_task_waits_for_its_transaction(ask: Ask, observer: SQClient) -> None:
    counts = ask("""
from django.conf import settings
from django.db import transaction
from stiqueue import SQClient
client = SQClient(port=settings.PORT)
seen = []
with transaction.atomic():
    committed.enqueue(1)
    seen.append(client.cnt())
seen.append(client.cnt())
try:
    with transaction.atomic():
        committed.enqueue(2)
        raise RuntimeError
except RuntimeError:
    seen.append(client.cnt())
committed.enqueue(3)
seen.append(client.cnt())
client.close()
print(json.dumps(seen))
""")
    assert counts == [0, 1, 1, 2]


def test_bad_settings_are_refused(ask: Ask) -> None:
    told = ask("""
from stiqueue.adapters.django import StiQueueBackend
told = []
for options in ({"prot": 1}, {"port": 70_000}):
    try:
        StiQueueBackend("mine", {"OPTIONS": options})
    except Exception as error:
        told.append(f"{type(error).__name__}: {error}")
print(json.dumps(told))
""")
    assert [each.split(":")[0] for each in told] == ["ImproperlyConfigured"] * 2
    assert "TASKS['mine']['OPTIONS']" in told[0]
    assert "port" in told[1]


def test_a_task_of_a_killed_worker_starts_elsewhere(
    ask: Ask, worker: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    first = worker("--queue", "mail")
    ask("hold.enqueue('a', 60)")
    assert seen() == "begin a"
    worker("--queue", "mail")
    until(lambda: observer.counts(queue="shop.mail").consumers, 2)
    first.kill()
    assert seen() == "begin a"


def test_a_stopping_worker_finishes_its_task(
    ask: Ask, worker: Any, seen: Callable[[], str], observer: SQClient
) -> None:
    program = worker()
    ask("hold.enqueue('a', 3); hold.enqueue('b', 3)")
    assert seen() == "begin a"
    program.process.terminate()
    assert seen() == "end a"
    assert program.process.wait(20) == 0
    assert observer.counts(queue="shop.mail").ready == 1


def test_a_worker_reloads(ask: Ask, worker: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It starts again when a module of the project has changed."""
    module = tmp_path / "changing.py"
    module.write_text("from django_project.settings import *\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "changing")
    program = worker("--reload")
    until(lambda: program.log.count("working on"), 1)

    def started() -> int:
        module.touch()  # again and again: the reloader may not have seen how old it was before
        return program.log.count("working on")

    until(lambda: started() >= 2, within=30)


def test_a_killed_server_loses_nothing(
    ask: Ask, worker: Any, seen: Callable[[], str], durable: ServerProcess, observer: SQClient
) -> None:
    worker("--threads", "2")
    ask("for number in range(150): mark.enqueue(number)")
    done: Counter[int] = Counter()
    for _ in range(2):
        done[int(seen())] += 1  # so that it is killed while tasks run
        assert durable.process is not None
        durable.process.kill()
        durable.wait()
        durable.start()
    ask("for number in range(150, 200): mark.enqueue(number)")
    while len(done) < 200:
        done[int(seen())] += 1
    until(lambda: observer.counts(queue="shop.default").leased, 0)


def test_an_unknown_backend_or_queue_is_an_error(ask: Ask, worker: Any) -> None:
    for options in (["--threads", "0"], ["--queue", "a b"], ["--backend", "nope"]):
        program = worker(*options)
        assert program.process.wait(20) == 1
        assert "CommandError" in program.log
        assert "Traceback" not in program.log
