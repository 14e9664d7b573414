"""The library that makes a disk die, compiled where there is a compiler."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from support.services import missing


def compile_disk(directory: Path) -> Path:
    """Compile `disk.c` into `directory`; skip the test where that cannot be done."""
    if sys.platform != "linux":
        missing("LD_PRELOAD of Linux")
    compiler = shutil.which("cc") or missing("a C compiler")
    library = directory / "disk.so"
    source = Path(__file__).with_name("disk.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True, timeout=60)
    return library
