"""Runs the commands in docs/cli.md; see scripts/record.

A block ``console`` holds commands behind ``$``, and what they print. A comment ``<!-- run: COMMAND -->`` prepares
something out of the reader's sight, ``<!-- picture: NAME -->`` makes a picture of the next block. All run in one empty
directory, on a terminal, beside one server, whose process is ``$SERVER``.
"""

from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "cli.md"
PICTURES = ROOT / "docs" / "images"
WIDTH, HEIGHT = 100, 30
COMMAND_SECONDS = 60.0

PART = re.compile(
    r"<!-- run: (?P<run>.*?) -->|<!-- picture: (?P<picture>\S+) -->|```console\n(?P<block>.*?)```", re.DOTALL
)
CONTROL = re.compile(r"\x1b\[(?P<numbers>[0-9;?]*)(?P<letter>[A-Za-z])|[\r\n]|[^\x1b\r\n]+|\x1b")


class Terminal:
    """A terminal just good enough for progress bars and live tables; colours stay in the lines."""

    def __init__(self) -> None:
        self.lines = [""]
        self._row = 0

    def feed(self, output: str) -> None:
        """Show `output`."""
        for match in CONTROL.finditer(output):
            text, letter = match[0], match["letter"]
            if text == "\n":
                self._row += 1
                self.lines += [""] * (self._row + 1 - len(self.lines))
            elif letter == "A":
                self._row = max(0, self._row - int(match["numbers"] or 1))
            elif letter == "K":
                self.lines[self._row] = ""
            elif letter == "m" or (letter is None and text not in ("\r", "\x1b")):
                self.lines[self._row] += text

    @property
    def text(self) -> str:
        """The text on the screen."""
        return "\n".join(self.lines).rstrip()


def on_terminal(command: str, environment: dict[str, str], directory: str) -> str:
    """Run a command on a terminal; return the final screen."""
    ours, theirs = pty.openpty()
    shell = ["bash", "-c", command]
    with subprocess.Popen(
        shell, stdin=theirs, stdout=theirs, stderr=theirs, cwd=directory, env=environment, start_new_session=True
    ) as process:
        os.close(theirs)
        output = b""
        deadline = time.monotonic() + COMMAND_SECONDS
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.1)[0]:
                try:
                    chunk = os.read(ours, 65_536)
                except OSError:  # nobody has the terminal any more
                    break
                output += chunk
            elif process.poll() is not None:
                break  # something that it started in the background still has it
        else:
            process.kill()
            raise TimeoutError(command)
    os.close(ours)
    terminal = Terminal()
    terminal.feed(output.decode())
    return terminal.text


@contextmanager
def session() -> Iterator[tuple[dict[str, str], str]]:
    """Start a server in an empty directory; yield the environment of its clients and the directory."""
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TERM": "xterm-256color",
        "COLUMNS": str(WIDTH),
        "LINES": str(HEIGHT),
    }
    with tempfile.TemporaryDirectory() as directory:
        server = subprocess.Popen(
            ["stiqueue", "serve", "--port", "0", "--grace", "0"],
            cwd=directory,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert server.stderr is not None
        try:
            found = re.search(r":(\d+), messages", server.stderr.readline())
            assert found is not None
            yield environment | {"STIQUEUE_PORT": found[1], "SERVER": str(server.pid)}, directory
        finally:
            server.kill()
            server.wait()


def rerun(page: str) -> str:
    """Return the page with the current output of its commands; without --check, also make its pictures."""
    picture = ""
    with session() as (environment, directory):

        def replace(match: re.Match[str]) -> str:
            nonlocal picture
            if match["run"]:
                subprocess.run(["bash", "-c", match["run"]], cwd=directory, env=environment, check=False)
            elif match["picture"]:
                picture = match["picture"]
            else:
                shown = ""
                for line in match["block"].splitlines():
                    if line.startswith("$ "):
                        output = on_terminal(line[2:], environment, directory)
                        output = output.replace(f":{environment['STIQUEUE_PORT']}", ":1234").replace(directory, ".")
                        shown += f"\x1b[1;32m$\x1b[0m {line[2:]}\n" + (output + "\n" if output else "")
                if picture:
                    draw(shown, picture)
                    picture = ""
                return f"```console\n{plain(shown)}```"
            return match[0]

        return PART.sub(replace, page)


def plain(text: str) -> str:
    """Return text without colours and trailing blanks."""
    return re.sub(r" +$", "", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text), flags=re.MULTILINE)


def draw(text: str, name: str) -> None:
    """Make a picture of a terminal that shows `text`."""
    from rich.console import Console
    from rich.text import Text

    with open(os.devnull, "w") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(Text.from_ansi(text.rstrip()))
    if "--check" in sys.argv:
        return
    PICTURES.mkdir(exist_ok=True)
    # The same picture gets the same name for its parts each time.
    console.save_svg(str(PICTURES / f"{name}.svg"), title="stiqueue", unique_id=name)


def alike(page: str) -> list[str]:
    """Return the lines of a page without everything that varies between runs: times, ages, rates and alignment."""
    return [re.sub(r"[ -]+", " ", re.sub(r"\d[\d,.]*(s|ms|m \d+s)?", "0", line)).strip() for line in page.splitlines()]


def main() -> None:
    """Rewrite the page, or with --check compare it."""
    page = PAGE.read_text()
    now = rerun(page)
    if "--check" not in sys.argv:
        PAGE.write_text(now)
    elif alike(page) != alike(now):
        before, after = next(pair for pair in zip(alike(page), alike(now), strict=False) if pair[0] != pair[1])
        sys.exit(f"docs/cli.md does not say what the commands print; run scripts/record:\n- {before}\n+ {after}")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
