"""Settings of queues in a data file: kept, checked, salvaged; and a file from before there were any."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import pytest

from engines.desk import as_killed, as_of_version, bodies, drain, enqueue, opened
from stiqueue.engines.sqlite.damage.salvage import check, salvage
from stiqueue.errors import StoreDamaged
from stiqueue.queue_settings import QueueSettings

MAIL = QueueSettings("m*", max_attempts=3, ttl=60.5, dead_letter_queue="all.dead")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A data file with a message and settings."""
    path = tmp_path / "stiqueue.db"
    with opened(path) as engine:
        enqueue(engine, b"a")
        for settings in (MAIL, QueueSettings("default", paused=True), QueueSettings("x", max_leased=1)):
            engine.configure_now(settings, [])
        answer = engine.configure_now(QueueSettings("x"), ["max_leased"])
        assert not isinstance(answer, QueueSettings)
        assert answer.result(10.0) == QueueSettings("x")
    return path


def test_they_are_there_after_a_restart(path: Path) -> None:
    with opened(path) as engine:
        assert engine.settings("").settings == [QueueSettings("default", paused=True), MAIL]
        assert drain(engine) == []


def test_what_was_answered_survives_a_kill(path: Path, tmp_path: Path) -> None:
    with opened(path) as engine:
        answer = engine.configure_now(QueueSettings("y", max_bytes=7), ["*"])
        assert not isinstance(answer, QueueSettings)
        answer.result(10.0)
        killed = as_killed(path, tmp_path / "killed.db")
    with opened(killed) as engine:
        assert QueueSettings("y", max_bytes=7) in engine.settings("").settings


def test_they_are_checked_and_salvaged(path: Path, tmp_path: Path) -> None:
    assert check(path).problems == []
    assert salvage(path, tmp_path / "new.db").saved == 1
    with opened(tmp_path / "new.db") as engine:
        assert engine.settings("").settings == [QueueSettings("default", paused=True), MAIL]


def test_damaged_ones_are_found(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("UPDATE setting SET settings = replace(settings, '3', '4')")
    db.close()
    assert "the settings of a queue are damaged" in check(path).problems[0]
    with pytest.raises(StoreDamaged, match="the settings of a queue are damaged"), opened(path):
        pass


def test_a_setting_of_a_newer_version_is_left_out(path: Path) -> None:
    from stiqueue.engines.sqlite.rows import SettingRow

    row = SettingRow("z", '{"max_leased": 1, "max_speed": 9}', 0, 0)
    with sqlite3.connect(path) as db:
        db.execute(
            "INSERT INTO setting (pattern, settings, until_ms, time_ms, crc) VALUES (?,?,?,?,?)", (*row, row.crc())
        )
    db.close()
    with opened(path) as engine:
        assert QueueSettings("z", max_leased=1) in engine.settings("").settings


def as_before(path: Path) -> None:
    """Make a data file what the version before settings would have made."""
    as_of_version(path, 1)
    assert struct.unpack_from(">I", path.read_bytes(), 52) == (7,), "the roots are not where they were"


def test_a_file_from_before_there_were_settings_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    with opened(path) as engine:
        enqueue(engine, b"a", b"b")
    as_before(path)
    assert check(path).problems == []
    with opened(path) as engine:
        engine.configure_now(QueueSettings("default", max_leased=7), [])
    assert check(path).problems == []
    with opened(path) as engine:
        assert engine.settings("").settings == [QueueSettings("default", max_leased=7)]
        assert bodies(drain(engine)) == [b"a", b"b"]
