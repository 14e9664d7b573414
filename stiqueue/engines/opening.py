"""Which engine keeps the messages: said by one word (a path, or that they stay in memory), or by a server's options."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from stiqueue.engine import Engine
from stiqueue.engines.bounds import Bounds
from stiqueue.engines.local import LocalEngine
from stiqueue.errors import StiQueueError, StoreError
from stiqueue.machine import memory_bytes
from stiqueue.settings import Settings

IN_MEMORY = ":memory:"
"""Instead of a path: keep messages in memory."""


def open_engine(
    data: str | os.PathLike[str] | None,
    bounds: Bounds | None = None,
    max_attempts: int = 0,
    sync: bool = True,
    accept_loss: bool = False,
    logger: logging.Logger | None = None,
    on_failure: Callable[[StiQueueError], None] | None = None,
    on_commit: Callable[[int, float], None] | None = None,
) -> LocalEngine:
    """Return an engine, not started yet.

    Args:
        data: the path of its data file; None or ":memory:": in memory.
        bounds: how much is taken in.
        max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
        sync: see `DurableEngine`.
        accept_loss: see `DurableEngine`.
        logger: where it logs.
        on_failure: called when the data file cannot be written any more.
        on_commit: told of each transaction of the data file: how many changes, how many seconds.
    """
    if data is None or data == IN_MEMORY:
        return LocalEngine(bounds, max_attempts)
    # Imported only here: SQLite and file locks are not needed, and may not be there, for a queue in memory.
    from stiqueue.engines.durable import DurableEngine

    engine = DurableEngine(os.fspath(data), bounds, max_attempts, sync=sync, accept_loss=accept_loss, logger=logger)
    if on_failure is not None:
        engine.on_failure = on_failure
    engine.on_commit = on_commit
    return engine


def engine_for(
    settings: Settings,
    logger: logging.Logger,
    on_failure: Callable[[StiQueueError], None],
    on_commit: Callable[[int, float], None] | None = None,
) -> Engine:
    """Return the engine that a server's options ask for, not started yet.

    Raises:
        StoreError: it needs a package that is not installed.
    """
    max_bytes = settings.max_bytes
    if max_bytes is None:
        in_memory = settings.data == IN_MEMORY and not settings.engine
        max_bytes = memory_bytes() // 2 if in_memory else 0
    bounds = Bounds(settings.max_messages, settings.max_queue_bytes, max_bytes, settings.max_queues)
    if not settings.engine:
        return open_engine(
            settings.data,
            bounds,
            settings.max_attempts,
            settings.sync == "always",
            settings.accept_loss,
            logger,
            on_failure,
            on_commit,
        )
    try:  # imported only here, for most servers need no cluster
        from stiqueue.engines.jetstream import JetStreamEngine
    except ImportError as error:
        scheme = settings.engine.partition("://")[0]
        raise StoreError(f"engine: {scheme} needs stiqueue[nats]: {error}") from error
    return JetStreamEngine(
        settings.engine, settings.replicas, settings.unsafe, bounds, settings.max_attempts, logger=logger
    )
