"""The server's log: where it goes and how its lines look."""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import time
from io import TextIOWrapper

from stiqueue.settings import Settings

FILE_BYTES, FILES = 10 << 20, 10
FIELDS = ("queue", "consumer", "message_id")
"""What a line says besides its text, where there is one: passed to the logger as `extra`."""


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, message, and those of `FIELDS` that are known."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{when}.{int(record.msecs):03}Z",
            "level": record.levelname,
            "message": record.getMessage(),
        }
        line.update({field: getattr(record, field) for field in FIELDS if hasattr(record, field)})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


class OwnersFile(logging.handlers.RotatingFileHandler):
    """A rotating log that only its owner can read: with `debug` it has the beginnings of messages."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return TextIOWrapper(open(os.open(self.baseFilename, flags, 0o600), "ab"), self.encoding)


def configure(settings: Settings) -> logging.Logger:
    """Send the log to stderr or to a rotating file; with `debug` down to every message."""
    logger = logging.getLogger("stiqueue")
    handler: logging.Handler = logging.StreamHandler()
    if settings.log:
        # Rotating would replace a symbolic link. A device or a pipe, such as /dev/stdout, has only the name given.
        special = os.path.exists(settings.log) and not os.path.isfile(settings.log)
        name = settings.log if special else os.path.realpath(settings.log)
        handler = OwnersFile(name, maxBytes=FILE_BYTES, backupCount=FILES)
    handler.setFormatter(
        JsonFormatter() if settings.log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    return logger
