"""The server: `SQServer`, and the command ``python -m stiqueue.sqserver``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from stiqueue import polling, standard
from stiqueue.errors import StiQueueError
from stiqueue.settings import Settings, parse_arguments

if TYPE_CHECKING:
    from stiqueue.serving import Service, SQServer

__all__ = ["SQServer", "Service", "main"]


def __getattr__(name: str) -> Any:
    """Import the class on first use, because `main` has a word with gRPC before that is imported."""
    if name in ("SQServer", "Service"):
        from stiqueue import serving

        return getattr(serving, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command: serve until SIGTERM or Ctrl-C; ends with 0, or with 1 when it cannot serve."""
    with standard.streams():
        settings = parse_arguments(arguments)
        polling.let_callers_poll()
        from stiqueue.server import logs, process
        from stiqueue.serving import SQServer

        process.tune()
        try:
            logger = logs.configure(settings)
            options = {name: getattr(settings, name) for name in Settings.__slots__}
            SQServer(logger=logger, **options).listen()
        except (StiQueueError, OSError) as error:
            standard.say(f"stiqueue: {error}")
            sys.exit(1)


if __name__ == "__main__":
    main()
