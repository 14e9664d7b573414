"""The tests of the original, taken from its source distribution, pass unchanged on this package."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ORIGINAL = "stiqueue==1.3.2"
FILES = ["test_client", "test_client_ack", "test_client_long_txt", "test_client_peek"]
"""All but `test_client_no_ack`, which demands that messages be lost, and those that do not start a server."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the original's tests, and none of its code."""
    folder = tmp_path_factory.mktemp("original")
    download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:", ORIGINAL]
    subprocess.run([*download, f"--dest={folder}"], check=True, timeout=120)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as source:
        for member in source.getmembers():
            if Path(member.name).stem in FILES:
                member.name = Path(member.name).name
                source.extract(member, folder, filter="data")
    return folder


@pytest.mark.alone  # their ports are fixed
@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("name", FILES)
def test_the_originals_tests_pass(originals: Path, name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unittest", "-v", name], cwd=originals, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert " ... ok" in done.stderr
