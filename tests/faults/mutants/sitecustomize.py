"""Breaks one promise of the server in every Python process of a test, to see that the test notices.

Python imports this module by its name when it starts, where PYTHONPATH has this directory; ``FAULT_MUTANT`` says what
to break.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any


def sync_off() -> None:
    """Call it on the disk when it is not."""
    from stiqueue.engines.store import Store

    real = Store.__init__

    def opened(self: Store, path: Any, sync: bool = True) -> None:
        real(self, path, False)

    Store.__init__ = opened  # type: ignore[method-assign]


def confirm_before_commit() -> None:
    """Answer, then write."""
    from stiqueue.engines.journal import Journal

    real = Journal._write

    def written(self: Journal, changes: Any, updates: Any) -> bool:
        for change in changes:
            if change.done:
                change.done(None)
                change.done = None
        return real(self, changes, updates)

    Journal._write = written  # type: ignore[method-assign]


def no_crc() -> None:
    """Take every row for what it was."""
    from stiqueue.engines import remains, view

    remains.is_right = lambda row: True
    view.first_wrong = lambda rows: None


def no_scan() -> None:
    """Leave damage in the log to SQLite."""
    from stiqueue.engines import wal

    wal.scan = lambda path: wal.WalScan(0, 0, 0, frozenset(range(100_000)))


def no_mark() -> None:
    """Forget how far the file had come."""
    from stiqueue.engines.claim import Mark

    Mark.of = staticmethod(lambda path: 0)  # type: ignore[method-assign]


def no_reserve() -> None:
    """Hold no space back for acks."""
    from stiqueue.engines.room import Room

    Room._take_reserve = lambda self: True  # type: ignore[method-assign]


def no_lock() -> None:
    """Let two servers have one file, as SQLite by itself would once its locks are dropped."""
    from stiqueue.engines import claim

    claim._lock = lambda *arguments: None


def close_after_failed_sync() -> None:
    """Move into the file what may not be on the disk."""
    from stiqueue.engines.store import Store

    Store.abandon = Store.close  # type: ignore[method-assign]


def check_opened_for_writing() -> None:
    """Look at a file with a connection that changes it when it closes."""
    from stiqueue.engines import checking
    from stiqueue.engines.store import Store

    checking.View = Store  # type: ignore[misc]


def no_ping_timeout() -> None:
    """Leave the time-out of a ping to gRPC, as almost everybody does."""
    from stiqueue import listening

    real = listening.channel_options
    listening.channel_options = lambda settings: [
        option for option in real(settings) if option[0] != "grpc.http2.ping_timeout_ms"
    ]


_MUTANTS: dict[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        sync_off,
        confirm_before_commit,
        no_crc,
        no_scan,
        no_mark,
        no_reserve,
        no_lock,
        close_after_failed_sync,
        check_opened_for_writing,
        no_ping_timeout,
    )
}

if os.environ.get("FAULT_MUTANT"):
    _MUTANTS[os.environ["FAULT_MUTANT"]]()
