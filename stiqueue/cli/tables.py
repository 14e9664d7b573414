"""Prints rows: as a table on a terminal, as tab-separated lines in a pipe, as JSON for scripts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from stiqueue.cli.output import Row, has_rich, on_terminal, printable, show_json, write

if TYPE_CHECKING:
    from rich.table import Table

GAP = 2
"""Spaces between two columns."""
NARROWEST = 8
"""The least width of a flexible column."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    key: str
    """The key of its value in a row, and its heading in a pipe."""
    title: str = ""
    """Its heading on a terminal; default: the key."""
    shown: Callable[[Any], str] = str
    """Formats a value for a terminal."""
    style: Callable[[Any], str] = lambda value: ""
    """Returns the colour of a value."""
    right: bool = True
    """Whether to align it to the right."""
    flexible: bool = False
    """Whether to cut its values on a narrow terminal."""
    extra: bool = False
    """Whether to leave it out on a narrow terminal."""
    rare: bool = False
    """Whether to leave it out on a terminal if no row has a value in it."""


def show_rows(columns: Sequence[Column], rows: Iterable[Row], as_json: bool) -> None:
    """Print rows: whole as JSON, or their columns as a table or (piped) as tab-separated lines."""
    if as_json:
        for row in rows:
            show_json(row)
    elif on_terminal() and not has_rich():
        write(plain_table(columns, list(rows), shutil.get_terminal_size().columns).encode())
    elif on_terminal():
        from rich.console import Console

        console = Console(highlight=False)
        console.print(table(columns, list(rows), console.width))
    else:
        write("\t".join(column.key for column in columns).encode() + b"\n")
        for row in rows:
            write("\t".join(printable(str(row[column.key])) for column in columns).encode() + b"\n")


def hidden(columns: Sequence[Column], rows: Sequence[Row], width: int) -> list[str]:
    """Return the titles of the columns that a terminal of `width` characters has no room for."""
    columns = _used(columns, rows)
    widths = {
        column: max(
            len(column.title or column.key), *(len(printable(column.shown(row[column.key]))) for row in rows), 0
        )
        for column in columns
    }
    _fit(widths, width)
    return [column.title or column.key for column in columns if column not in widths]


def table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> Table:
    """Return the table of `rows` for a terminal of `width` characters."""
    from rich.table import Table
    from rich.text import Text

    columns = _used(columns, rows)
    titles = {column: Text(column.title or column.key, "bold") for column in columns}
    cells = {
        column: [Text(printable(column.shown(row[column.key])), column.style(row[column.key])) for row in rows]
        for column in columns
    }
    widths = {column: max(text.cell_len for text in [titles[column], *cells[column]]) for column in columns}
    _fit(widths, width)
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0))
    for column, room in widths.items():
        for text in cells[column]:
            text.truncate(room, overflow="ellipsis")
        made.add_column(titles[column], justify="right" if column.right else "left", no_wrap=True)
    for values in zip(*(cells[column] for column in widths), strict=True):
        made.add_row(*values)
    return made


def plain_table(columns: Sequence[Column], rows: Sequence[Row], width: int) -> str:
    """Return the same as text without colours, for a terminal without the extra ``cli``."""
    columns = _used(columns, rows)
    cells = {
        column: [column.title or column.key, *(printable(column.shown(row[column.key])) for row in rows)]
        for column in columns
    }
    widths = {column: max(map(len, texts)) for column, texts in cells.items()}
    _fit(widths, width)
    aligned = []
    for column, room in widths.items():
        cut = (text if len(text) <= room else text[: room - 1] + "…" for text in cells[column])
        aligned.append([text.rjust(room) if column.right else text.ljust(room) for text in cut])
    return "".join((" " * GAP).join(line).rstrip() + "\n" for line in zip(*aligned, strict=True))


def _used(columns: Sequence[Column], rows: Sequence[Row]) -> list[Column]:
    return [column for column in columns if not column.rare or any(row[column.key] for row in rows)]


def _fit(widths: dict[Column, int], width: int) -> None:
    """Remove and narrow columns until they fit."""
    for column in reversed(list(widths)):
        if column.extra and _total(widths) > width:
            del widths[column]
    while _total(widths) > width:
        widest = max((column for column in widths if column.flexible), key=lambda column: widths[column], default=None)
        if widest is None or widths[widest] <= NARROWEST:
            break
        widths[widest] -= 1


def _total(widths: dict[Column, int]) -> int:
    return sum(widths.values()) + GAP * (len(widths) - 1)


# -- values, for people -----------------------------------------------------------------------------------------------


def number(value: float) -> str:
    """Format a count; a dash for 0, so that the others stand out."""
    return f"{value:,.0f}" if value >= 0.5 else "-"


def rate(value: float) -> str:
    """Format a rate per second."""
    return f"{value:.1f}" if 0 < value < 10 else number(value)


def size(value: float) -> str:
    """Format bytes as kB, MB, ..."""
    if value < 1_000:
        return f"{value:.0f} B" if value else "-"
    for unit in ("kB", "MB", "GB", "TB"):
        value /= 1_000
        if value < 999.5 or unit == "TB":
            break
    return f"{value:,.3g} {unit}" if value < 999.5 else f"{value:,.0f} {unit}"


def age(milliseconds: float) -> str:
    """Format a duration in its two largest units."""
    seconds = milliseconds / 1_000
    if not seconds:
        return "-"
    if seconds < 10:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for unit, length, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "m", 60), ("m", 60, "s", 1)):
        if whole >= length:
            return f"{whole // length}{unit} {whole % length // part}{smaller}"
    return f"{whole}s"
