"""Keeps children of `fork` from gRPC where it would hang or crash: if their parent used `grpc.aio`.

Blocking channels survive a fork. Those of asyncio have a polling thread, which the child lacks: it cannot use
`grpc.aio` at all, and blocking channels only if the parent's asyncio channels were closed by then. With grpcio 1.71
the fork itself sometimes hangs after asyncio was used (3 of 8 times; with 1.72 and newer never).

gRPC starts its own threads again in the child. If they find an open stream of asyncio there, the child may crash (one
in five on a busy machine), so the gate closes pipes before a fork.
"""

from __future__ import annotations

import gc
import os

from stiqueue.errors import NotSupported

_REMEDY = "start the process by spawn or forkserver, or fork it before the first call of an AsyncSQClient"

_aio_process = 0
"""The process that opened the first asyncio channel."""
_aio_channels = 0
"""The number of open asyncio channels."""
_is_broken = False
"""Whether this process was forked while an asyncio channel was open."""


def check() -> None:
    """Raise `NotSupported` if a blocking channel cannot work here."""
    if _is_broken:
        raise NotSupported(f"gRPC does not work in a process forked while an AsyncSQClient was open: {_REMEDY}")


def check_aio() -> None:
    """Raise `NotSupported` if a channel of asyncio cannot work here."""
    check()
    if _aio_process not in (0, os.getpid()):
        raise NotSupported(f"grpc.aio does not work in a process forked after its parent used it: {_REMEDY}")


def opened() -> None:
    """Note that a channel of asyncio was opened."""
    global _aio_process, _aio_channels
    _aio_process = os.getpid()
    _aio_channels += 1


def closed() -> None:
    """Note that a channel of asyncio was closed."""
    global _aio_channels
    _aio_channels -= 1


def _before_fork() -> None:
    if _aio_process == os.getpid() and not _aio_channels:
        # Ended calls are in reference cycles. A child that freed them would wait for the thread.
        gc.collect()


def _after_fork_in_child() -> None:
    global _is_broken
    _is_broken = _is_broken or _aio_channels > 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)
