"""How much memory a server may use, by all that limits it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stiqueue.engines import machine

MIB = 1 << 20


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of that of the control groups; this process is in a unit within a slice."""
    own = tmp_path / "own"
    own.write_text("4:memory:/other\n0::/some.slice/a.service\n")
    (tmp_path / "some.slice/a.service").mkdir(parents=True)
    (tmp_path / "some.slice/memory.max").write_text("max\n")
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_GROUPS", own)
    return tmp_path


@pytest.mark.parametrize(
    "where",
    ["memory.max", "memory/memory.limit_in_bytes", "some.slice/memory.max", "some.slice/a.service/memory.max"],
    ids=["container", "container, version 1", "slice", "unit"],
)
def test_the_limit_of_a_control_group_is_known(groups: Path, where: str) -> None:
    unlimited = machine.memory_bytes()
    (groups / where).parent.mkdir(exist_ok=True)
    (groups / where).write_text(f"{100 * MIB}\n")
    assert machine.memory_bytes() == 100 * MIB < unlimited


@pytest.mark.skipif(sys.platform != "linux", reason="limits of Linux")
def test_the_limit_of_the_shell_is_known() -> None:
    program = "from stiqueue.engines.machine import memory_bytes; print(memory_bytes())"
    command = ["sh", "-c", 'ulimit -d 262144 && exec "$@"', "sh", sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(done.stdout) == 256 * MIB


def test_without_limits_it_is_what_the_machine_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_GROUPS", tmp_path)
    monkeypatch.setattr(machine, "_OWN_GROUPS", tmp_path / "absent")
    monkeypatch.setattr(machine, "resource", None)
    assert machine.memory_bytes() > 100 * MIB
