"""The data file, or a file beside it, is removed or replaced while its server runs."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from engines.desk import bodies, drain, enqueue, opened

from stiqueue import LocalSQClient, SQClient, StiQueueError, Unavailable
from stiqueue.engines.sqlite.watch import WATCHED

from .processes import ServerProcess, wait_until
from .run import Run

SECONDS = 10.0
"""How long the server may take on a busy machine; it looks every half second."""


def confirm_until_refused(server: ServerProcess, act: Callable[[], object]) -> list[bytes]:
    """Enqueue one message after the other, `act` after the 20th; return what was confirmed."""
    confirmed: list[bytes] = []
    with SQClient(port=server.port, timeout=5.0) as client:
        while True:
            body = b"%d" % len(confirmed)
            try:
                client.enq(body)
            except StiQueueError:
                return confirmed
            confirmed.append(body)
            if len(confirmed) == 20:
                act()


def remove_all(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def replace(path: Path) -> None:
    """As an editor or a restored backup does."""
    shutil.copyfile(path, path.with_suffix(".copy"))
    path.with_suffix(".copy").rename(path)


WAYS: dict[str, tuple[Callable[[Path], object], str]] = {
    "removed": (Path.unlink, r"stiqueue\.db: was removed while it was in use"),
    "removed with all that is beside it": (remove_all, r"stiqueue\.db: was removed while it was in use"),
    "removed with its directory": (
        lambda path: path.parent.rename(path.parent.with_name("elsewhere")),
        r"stiqueue\.db: was removed while it was in use",
    ),
    "replaced": (replace, r"stiqueue\.db: was replaced while it was in use"),
    **{
        f"without its {end[1:]}": (
            lambda path, end=end: Path(f"{path}{end}").unlink(),
            rf"stiqueue\.db{end}: was removed while it was in use",
        )
        for end in WATCHED[1:]
    },
}


@pytest.mark.parametrize("way", WAYS)
def test_a_removed_data_file_ends_the_server(run: Run, way: str) -> None:
    """It confirms nothing more, ends with one clear line, and says where all that it had confirmed is."""
    act, told = WAYS[way]
    path = run.directory / "data" / "stiqueue.db"
    path.parent.mkdir()
    server = run.server("--data", str(path))
    confirmed = confirm_until_refused(server, lambda: act(path))
    assert server.wait(SECONDS) == 1
    assert re.search(rf"^stiqueue: .*{told}; stopping, for what is written now would be lost$", server.log, re.M)
    if not path.parent.exists():
        assert "what it had could not be copied" in server.log
        path = path.parent.with_name("elsewhere") / path.name
    elif "has all that was confirmed; start again" not in server.log:
        (path,) = path.parent.glob("stiqueue.db.removed-*[0-9]")
        assert f"all that was confirmed is in {path}: start with --data {path}" in server.log
        assert path.stat().st_mode & 0o777 == 0o600
    with opened(path) as engine:
        assert bodies(drain(engine))[: len(confirmed)] == confirmed


def test_an_idle_server_notices_it_too(run: Run) -> None:
    path = run.directory / "stiqueue.db"
    server = run.server("--data", str(path))
    path.unlink()
    assert server.wait(SECONDS) == 1
    assert "was removed while it was in use" in server.log


def test_a_second_server_on_the_path_is_left_alone(run: Run) -> None:
    """The first one touches no file of the second."""
    path = run.directory / "stiqueue.db"
    first = run.server("--data", str(path))
    with SQClient(port=first.port) as client:
        client.enq("old")
    remove_all(path)
    with opened(path) as engine:
        enqueue(engine, b"new")
        assert first.wait(SECONDS) == 1
        enqueue(engine, b"newer")
    with opened(path) as engine:
        assert bodies(drain(engine)) == [b"new", b"newer"]
    (kept,) = run.directory.glob("stiqueue.db.removed-*[0-9]")
    with opened(kept) as engine:
        assert bodies(drain(engine)) == [b"old"]


def test_a_stop_just_after_it_was_removed_keeps_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    with opened(path) as engine:
        enqueue(engine, b"a")
        path.unlink()
    (kept,) = tmp_path.glob("stiqueue.db.removed-*[0-9]")
    with opened(kept) as engine:
        assert bodies(drain(engine)) == [b"a"]


def test_a_local_client_says_so(tmp_path: Path) -> None:
    path = tmp_path / "stiqueue.db"
    with LocalSQClient(path) as client:
        client.enq("a")
        path.unlink()

        def refused() -> bool:
            try:
                client.enq("b")
            except Unavailable as error:
                return "was removed while it was in use" in str(error)
            return False

        wait_until(refused, SECONDS, "the client refuses", every=0.05)
