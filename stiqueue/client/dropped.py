"""Clients and messages that are garbage-collected before they were closed or settled."""

from __future__ import annotations

import warnings
import weakref
from typing import Protocol

from stiqueue.client.transport import Transport
from stiqueue.client.waiting.concurrency import Concurrency


def watch(owner: object, transport: Transport, concurrency: Concurrency) -> weakref.finalize[..., object]:
    """Close `transport` when `owner` is collected; return the finalizer, to be detached once it is closed."""
    finalizer = weakref.finalize(owner, _give_up, transport, concurrency, concurrency.home())
    finalizer.atexit = False  # `exits` closes clients that live as long as the interpreter
    return finalizer


def _give_up(transport: Transport, concurrency: Concurrency, home: object) -> None:
    """Warn and close. The garbage collector calls it on any thread, which may hold any lock."""
    try:
        if transport.reaches:
            text = f"unclosed client of {transport.reaches}: use it in a `with` block, or call `close`"
            warnings.warn(text, ResourceWarning, stacklevel=2)
    finally:
        concurrency.leave(transport.give_up, home)


class Abandonable(Protocol):
    """The holder of the message's lease."""

    unsettled: dict[str, float | None]
    """The leases that are not settled."""

    def abandon(self) -> None:
        """Give the message back. Takes no lock and does not wait."""
        ...


class Finalizer:
    """Gives a message of `deq` back when nobody can settle it any more: when this object ends.

    The `Message` owns it. With `auto_ack`, so does the thread or task that took the message.
    """

    __slots__ = ("_holder", "_lease_id")

    def __init__(self, holder: Abandonable, lease_id: str) -> None:
        """Watch over the message of a lease."""
        self._holder = holder
        self._lease_id = lease_id

    def __del__(self) -> None:
        if self._lease_id in self._holder.unsettled:
            self._holder.abandon()
