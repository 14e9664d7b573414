"""The server's log: where it goes and how its lines look."""

from __future__ import annotations

import json
import logging
import logging.handlers
import time

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


def configure(settings: Settings) -> logging.Logger:
    """Send the log to stderr or to a rotating file; with `debug` down to every message."""
    logger = logging.getLogger("stiqueue")
    handler: logging.Handler = logging.StreamHandler()
    if settings.log:
        handler = logging.handlers.RotatingFileHandler(settings.log, maxBytes=FILE_BYTES, backupCount=FILES)
    handler.setFormatter(
        JsonFormatter() if settings.log_format == "json" else logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    )
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if settings.debug else logging.INFO)
    return logger
