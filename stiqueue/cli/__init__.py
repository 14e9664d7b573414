"""The command ``stiqueue``: all that a client can do, and starting a server, for people and scripts.

It comes with the extra ``pip install 'stiqueue[cli]'``; `docs/cli.md` shows every command at work.
"""

from __future__ import annotations

import signal
import sys
from importlib.util import find_spec

LIBRARIES = ("click", "rich")
"""What the extra installs, and the library alone does without."""


def main() -> None:
    """Run the command; see ``stiqueue --help``."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback when Ctrl-C comes while it is being loaded
    if not all(map(find_spec, LIBRARIES)):
        sys.exit("stiqueue: this command needs more than the library: pip install 'stiqueue[cli]'")
    from stiqueue.cli.app import app

    app()
