"""The Dockerfile says what it must; `scripts/image-test` builds the image and tries it."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions with their arguments, comments left out and long lines joined."""
    lines = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)]


def test_everything_copied_is_let_through() -> None:
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert copied == let_through


def test_it_runs_as_nobody_in_particular_with_a_volume() -> None:
    seen = dict(instructions())
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", seen["USER"]), "must not run as root"
    assert seen["VOLUME"] == seen["WORKDIR"] == "/data"
    assert seen["EXPOSE"] == "1234"
