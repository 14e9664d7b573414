"""Disks of a test: one whose power can be cut, and one that is small."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MOUNT_SECONDS = 30


def _run(*command: object) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=MOUNT_SECONDS, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(map(str, command))}: {done.stderr.strip()}")


def cannot_mount(error: Exception) -> None:
    """Skip the test because nothing can be mounted here; fail it for root in CI, where that must be possible."""
    if os.environ.get("CI") and os.geteuid() == 0:
        pytest.fail(f"nothing can be mounted, and in CI it must be: {error}", pytrace=False)
    pytest.skip(f"needs to mount a file system: {error}")


class LoopDisk:
    """An ext4 file system in a file. Cut the power, and what was not synced is gone."""

    def __init__(self, directory: Path, megabytes: int = 64) -> None:
        """Make it, mounted at `path`, or skip the test."""
        self.path = directory / "disk"
        self._image = directory / "disk.img"
        self._copy = directory / "copy.img"
        try:
            self.path.mkdir()
            with self._image.open("wb") as file:
                file.truncate(megabytes << 20)
            _run("mkfs.ext4", "-q", "-F", self._image)
            _run("mount", "-o", "loop", self._image, self.path)
        except OSError as error:
            cannot_mount(error)

    def freeze(self) -> None:
        """Keep what a power cut at this moment would leave; who writes must be stopped meanwhile."""
        _run("cp", "--sparse=always", self._image, self._copy)

    def cut_power(self) -> None:
        """Go back to what was kept, at the same path; nobody may have a file open."""
        _run("umount", self.path)
        self._copy.replace(self._image)
        _run("mount", "-o", "loop", self._image, self.path)

    def close(self) -> None:
        """Take it away."""
        subprocess.run(["umount", self.path], capture_output=True, timeout=MOUNT_SECONDS, check=False)
        self._image.unlink(missing_ok=True)
        self._copy.unlink(missing_ok=True)

    def __enter__(self) -> LoopDisk:
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Take it away."""
        self.close()


@contextmanager
def small_disk(directory: Path, megabytes: int, options: str = "rw") -> Iterator[Path]:
    """Mount a file system of that size, in memory, or skip the test."""
    path = directory / "small"
    path.mkdir()
    try:
        _run("mount", "-t", "tmpfs", "-o", f"size={megabytes}m,{options}", "tmpfs", path)
    except OSError as error:
        cannot_mount(error)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], capture_output=True, timeout=MOUNT_SECONDS, check=False)
