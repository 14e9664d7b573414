"""The command ``stiqueue``: everything that a client can do, and starting a server, for people and scripts.

The extra ``pip install 'stiqueue[cli]'`` adds colours and live views; `docs/cli.md` has examples of every command.
"""

from __future__ import annotations

import signal
import sys

from stiqueue import polling, standard


def main() -> None:
    """Run the command; see ``stiqueue --help``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback if Ctrl-C comes during the imports
    if sys.argv[1:2] == ["serve"]:
        polling.let_callers_poll()
    with standard.streams():
        from stiqueue.cli.app import app

        app()
