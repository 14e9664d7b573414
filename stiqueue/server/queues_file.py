"""The file with settings of queues (``--queues``), read again when it changes."""

from __future__ import annotations

import difflib
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stiqueue.arguments import shown
from stiqueue.errors import InvalidRequest
from stiqueue.limits import check_pattern, check_settings
from stiqueue.queue_settings import SETTINGS, QueueSettings
from stiqueue.wire.credentials import FileWatch

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Apply = Callable[[list[QueueSettings]], None]
"""Replaces the file's previous settings with new ones, which take effect at once."""


class QueuesFile:
    """The settings of one file. Used by the event loop alone.

    The file is TOML: a table for each queue or pattern, such as ``["mail.*"]``, with its settings: ``max_leased = 5``.
    Durations are numbers of seconds.
    """

    def __init__(self, path: str, logger: logging.Logger) -> None:
        """Read the file.

        Raises:
            InvalidRequest: it cannot be read, or something in it is wrong; names the table and the setting.
        """
        self._path = Path(path)
        self._logger = logger
        self._watch = FileWatch(path)
        self.settings = read(self._path)

    def refresh(self, apply: Apply) -> None:
        """Read the file again if it has changed, and `apply` it. A mistake in it changes nothing and is logged."""
        if not self._watch.has_changed():
            return
        try:
            self.settings = read(self._path)
        except InvalidRequest as error:
            self._logger.error("%s; the settings stay as they were", error)
            return
        apply(self.settings)
        self._logger.info("queues: read settings of %d queues and patterns from %s", len(self.settings), self._path)


def read(path: Path) -> list[QueueSettings]:
    """Return the settings in a file.

    Raises:
        InvalidRequest: it cannot be read, or something in it is wrong.
    """
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"queues: cannot read {path}: {error.strerror}", "BAD_OPTION") from error
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"queues: {path} is not UTF-8", "BAD_OPTION") from error
    except (ValueError, RecursionError) as error:  # also of a number with 5,000 digits, and of a thousand brackets
        raise InvalidRequest(f"queues: {path} is not TOML: {error}", "BAD_OPTION") from error
    found: dict[str, QueueSettings] = {}
    for name, table in tables.items():
        try:
            settings = _settings(name, table)
        except InvalidRequest as error:
            raise InvalidRequest(f"queues: {path}, [{shown(name)}]: {error}", "BAD_OPTION") from None
        if settings.queue in found:
            raise InvalidRequest(f"queues: {path} has two tables for {settings.queue}", "BAD_OPTION")
        found[settings.queue] = settings
    return list(found.values())


def _settings(name: str, table: Any) -> QueueSettings:
    """Return the settings in one table."""
    if not isinstance(table, dict):
        raise InvalidRequest(f"it stands outside a table; write it below the name of a queue, such as [{name}]")
    for setting, value in table.items():
        if isinstance(value, dict):  # [mail.new] is a table "new" inside of "mail"
            raise InvalidRequest(f'{setting} is a table; write the name with quotes: ["{name}.{setting}"]')
        if setting not in SETTINGS:
            meant = difflib.get_close_matches(setting, SETTINGS, 1)
            hint = f"did you mean {meant[0]}?" if meant else f"they are {', '.join(SETTINGS)}"
            raise InvalidRequest(f"{shown(setting)} is not a setting; {hint}")
    settings = QueueSettings(check_pattern(name), **table)
    check_settings(settings)
    return settings
