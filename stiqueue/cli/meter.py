"""Progress bars on stderr, if it is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from stiqueue.cli.output import has_rich, messages
from stiqueue.cli.signals import last_words

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PATIENCE_SECONDS = 0.5
"""Shorter work shows no bar."""


class Meter:
    """Counts messages and shows their number and rate; use it in a ``with`` block."""

    def __init__(self, doing: str, total: float | None = None, hidden: bool = False) -> None:
        """Count towards `total` steps: messages, or bytes, as passed to `add`.

        Args:
            doing: the name of the work.
            total: the number of steps; None: unknown.
            hidden: show nothing, because the work prints to the same terminal.
        """
        self.messages = 0
        self._doing = doing
        self._total = total
        self._steps = 0.0
        self._started = time.monotonic()
        self._watched = sys.stderr.isatty() and not hidden and has_rich()
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._until_the_end = ExitStack()

    @property
    def seconds(self) -> float:
        """Seconds since it started counting."""
        return time.monotonic() - self._started

    def add(self, messages: int, steps: float | None = None) -> None:
        """Count `messages`, and `steps` of the total (default: the same number)."""
        self.messages += messages
        self._steps += messages if steps is None else steps
        if self._watched and self.seconds > PATIENCE_SECONDS:
            self._show()

    def _show(self) -> None:
        if self._progress is None or self._task is None:
            self._progress, self._task = _bar(self._doing, self._total)
        speed = f"{messages(self.messages)}, {self.messages / self.seconds:,.0f}/s"
        self._progress.update(self._task, completed=self._steps, speed=speed)

    def __enter__(self) -> Meter:
        if self._watched:
            self._until_the_end.enter_context(last_words())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._until_the_end.close()


def _bar(doing: str, total: float | None) -> tuple[Progress, TaskID]:
    """Return a bar on stderr that disappears when stopped."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn

    known = [BarColumn(), TaskProgressColumn(), TimeRemainingColumn()] if total else []
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        *known,
        TextColumn("{task.fields[speed]}"),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    progress.start()
    return progress, progress.add_task(doing, total=total, speed="")


@contextmanager
def working(doing: str) -> Iterator[None]:
    """Show a spinner during work of unknown length."""
    if not (sys.stderr.isatty() and has_rich()):
        yield
        return
    from rich.console import Console

    with last_words(), Console(stderr=True).status(doing):
        yield
