"""Opens the engine that a path or a server's options ask for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

from stiqueue.engines.bounds import Bounds
from stiqueue.engines.clock import Clock
from stiqueue.engines.local.engine import LocalEngine
from stiqueue.engines.machine import memory_bytes
from stiqueue.errors import StiQueueError, StoreError
from stiqueue.rules.engine import Engine
from stiqueue.rules.lane import Window
from stiqueue.settings import IN_MEMORY, Settings


def open_engine(
    data: str | os.PathLike[str] | None,
    bounds: Bounds | None = None,
    max_attempts: int = 0,
    sync: bool = True,
    accept_loss: bool = False,
    logger: logging.Logger | None = None,
    on_failure: Callable[[StiQueueError], None] | None = None,
    on_commit: Callable[[int, float], None] | None = None,
    clock: Clock | None = None,
    window: Window | None = None,
    ack_timeout: float | None = None,
) -> LocalEngine:
    """Return an engine, not started yet.

    Args:
        data: the path of its data file; None or ":memory:": in memory.
        bounds: how much is taken in.
        max_attempts: deliveries before a message moves to the dead letter queue; 0: no limit.
        sync: whether a confirmed message is on the disk; False: when the operating system sees fit.
        accept_loss: go on with what can be read of a damaged file.
        logger: where it logs.
        on_failure: called when the data file cannot be written any more.
        on_commit: called after each transaction of the data file with its number of changes and its seconds.
        clock: where the time comes from; default: the machine's clocks.
        window: how much of each queue of a data file is in memory; default: see `Window`.
        ack_timeout: seconds until an unsettled message is given back, for consumers that do not say themselves.
    """
    if data is None or data == IN_MEMORY:
        return LocalEngine(bounds, max_attempts, clock, ack_timeout=ack_timeout)
    # Imported only here: SQLite and file locks are not needed, and may not be there, for a queue in memory.
    from stiqueue.engines.sqlite.log import SqliteLog

    log = SqliteLog(data, clock, sync, accept_loss, logger, on_commit)
    engine = LocalEngine(bounds, max_attempts, clock, log, window, ack_timeout)
    if on_failure is not None:
        engine.on_failure = on_failure
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
            ack_timeout=settings.ack_timeout,
        )
    try:  # imported only here, for most servers need no cluster
        from stiqueue.engines.jetstream import JetStreamEngine
    except ImportError as error:
        scheme = settings.engine.partition("://")[0]
        raise StoreError(f"engine: {scheme} needs stiqueue[nats]: {error}") from error
    return JetStreamEngine(
        settings.engine,
        settings.replicas,
        settings.unsafe,
        bounds,
        settings.max_attempts,
        settings.ack_timeout,
        logger=logger,
    )
