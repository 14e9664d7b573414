"""Programs in which gevent or eventlet has replaced threads: gRPC does not work there."""

from __future__ import annotations

import sys

from stiqueue.errors import NotSupported

_ASKED = {
    "gevent": ("gevent.monkey", "is_module_patched", "threading"),
    "eventlet": ("eventlet.patcher", "is_monkey_patched", "thread"),
}
"""Whom to ask, by library: its module, the function there, and its argument."""


def check(what: str) -> None:
    """Raise `NotSupported` where `what` could not work because threads are greenlets.

    gRPC waits in C, where no greenlet gives way to another: the first call would stop the whole program for ever.
    """
    for library, (module, function, argument) in _ASKED.items():
        loaded = sys.modules.get(module)  # who has not imported it has replaced nothing
        if loaded is not None and getattr(loaded, function)(argument):
            raise NotSupported(
                f"{what} does not work where {library} has patched threads: leave them as they are "
                f"({'monkey.patch_all(thread=False)' if library == 'gevent' else 'monkey_patch(thread=False)'}), "
                "or use StiQueue in a process of its own"
            )
