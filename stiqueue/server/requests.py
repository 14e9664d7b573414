"""The work of `Enq`, `Ack` and `Cnt`, whether a request comes as a call or on a pipe."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from stiqueue import limits
from stiqueue.errors import ServerError, StiQueueError, Unavailable
from stiqueue.message import Batch, Outcome, Receipt, Settlement
from stiqueue.rules.engine import Engine, Soon
from stiqueue.rules.entry import Leased
from stiqueue.rules.later import Later
from stiqueue.server.access.guard import Guard, Observe
from stiqueue.server.access.tokens import Right
from stiqueue.server.message_log import LoggedLease, MessageLog
from stiqueue.server.translation import (
    read_batch,
    read_settlement,
    write_counts,
    write_exchanged,
    write_receipt,
)
from stiqueue.settings import Settings
from stiqueue.v1 import queue_pb2 as pb

T = TypeVar("T")
R = TypeVar("R")

Found = dict[str, "LoggedLease | None"]
"""The messages of leases, for the log."""

DEFECTS = (TypeError, ValueError, KeyError, AttributeError, RuntimeError, AssertionError)
"""Exceptions that only a mistake in this program raises."""


class Requests:
    """Reads, checks and serves requests from an engine, on one event loop.

    `enq`, `ack` and `cnt` raise `StiQueueError`, at once or when awaited; then nothing was done. They check the rights
    of the call that the current task serves.
    """

    def __init__(self, engine: Engine, settings: Settings, logger: logging.Logger, guard: Guard | None = None) -> None:
        """Serve `engine` within the limits of `settings`; with `guard`, only to calls with the right token."""
        self.engine = engine
        self.settings = settings
        self.logger = logger
        self.guard = guard
        self.log = MessageLog(logger)
        self.observe: Observe | None = None
        """Called with (method, status code, seconds) for each request that was served."""
        self.is_open = self.is_draining = False
        self._max_message_bytes = settings.buff_size - limits.MESSAGE_ROOM

    def enq(self, request: pb.EnqRequest) -> Soon[pb.EnqResponse]:
        """Enqueue."""
        self.refuse_new()
        batch = read_batch(request)
        limits.check_batch(batch, self._max_message_bytes)
        self.check(Right.ENQ, batch.queue)
        if batch.ack_lease_ids:
            self.check(Right.DEQ)
        acked = self.log.holds(batch.ack_lease_ids) if self.log.is_on else None
        receipt = self.engine.enq(batch)
        if isinstance(receipt, Receipt):
            return self._enqueued(batch, acked, receipt)
        return _then(receipt, partial(self._enqueued, batch, acked))

    def _enqueued(self, batch: Batch, acked: Found | None, receipt: Receipt) -> pb.EnqResponse:
        if acked is not None:
            self.log.enqueued(batch, receipt.first_id)
            self.log.settled(Outcome.ACK, acked)
        return write_receipt(receipt)

    def ack(self, request: pb.AckRequest) -> Soon[pb.AckResponse]:
        """Settle leases, and with `take_next` lease the next messages."""
        settlement = read_settlement(request)
        limits.check_settlement(settlement)
        # For no queue in particular: a lease id cannot be guessed, so whoever has one was given the message.
        self.check(Right.DEQ)
        if request.take_next:
            limits.check_exchange(settlement)
            return self._exchange(settlement.lease_ids[0])
        found = self.log.holds(settlement.lease_ids) if self.log.is_on else None
        stale = self.engine.settle(settlement)
        if isinstance(stale, list):
            return self._settled(settlement, found, stale)
        return _then(stale, partial(self._settled, settlement, found))

    def _settled(self, settlement: Settlement, found: Found | None, stale: list[str]) -> pb.AckResponse:
        if found is not None:
            self.log.settled(settlement.outcome, found, stale)
        return pb.AckResponse(stale_lease_ids=stale)

    def _exchange(self, lease_id: str) -> Soon[pb.AckResponse]:
        if self.guard is not None and (queue := self.engine.queue_of(lease_id)) is not None:
            self.check(Right.DEQ, queue)
        found = self.log.holds([lease_id]) if self.log.is_on else None
        given = self.engine.exchange(lease_id)
        if isinstance(given, Awaitable):
            return _then(given, partial(self._exchanged, lease_id, found))
        return self._exchanged(lease_id, found, given)

    def _exchanged(self, lease_id: str, found: Found | None, given: Sequence[Leased] | None) -> pb.AckResponse:
        if found is not None:
            self.log.exchanged(found, given)
        return write_exchanged(lease_id, given)

    async def cnt(self, request: pb.CntRequest) -> pb.CntResponse:
        """Count."""
        limits.check_queues(request.queues)
        queues = [limits.queue_name(name) for name in request.queues]
        self.check(Right.PEEK, *queues)
        counts = await self.engine.counts(queues)
        if self.guard is not None:
            grant = self.guard.current()
            counts = [each for each in counts if grant.allows(Right.PEEK, each.queue)]
        return write_counts(counts)

    def check(self, right: Right, *queues: str) -> None:
        """Check that the current call has `right` on `queues`, if the server has a guard."""
        if self.guard is not None:
            self.guard.check(right, queues)

    def refuse_new(self) -> None:
        """Raise `Unavailable` if the server no longer accepts messages and consumers."""
        if self.is_draining:
            raise Unavailable("the server is stopping", "SHUTTING_DOWN")

    def refuse_early(self) -> None:
        """Raise `Unavailable` before the engine is ready."""
        if not self.is_open:
            raise Unavailable("the server is starting", "STARTING")

    def failure(self, method: str, request: Any, error: BaseException) -> StiQueueError:
        """Return the error to answer after `error` in `method`; log a defect, which becomes INTERNAL.

        Raises:
            BaseException: `error`, when it is neither.
        """
        if isinstance(error, StiQueueError):
            return error
        if not isinstance(error, DEFECTS):
            raise error
        extra = {name: text for name in ("queue", "consumer") if (text := getattr(request, name, ""))}
        self.logger.error("a defect in %s", method, exc_info=error, extra=extra)
        return ServerError(f"{type(error).__name__} in {method}; the server's log has the details")

    def served(self, method: str, code: str, began: float) -> None:
        """Count a request that began at `began` by `time.perf_counter`."""
        if self.observe is not None:
            self.observe(method, code, time.perf_counter() - began)


def _then(answer: Awaitable[T], make: Callable[[T], R]) -> Awaitable[R]:
    """Return an awaitable of the result of `make` for `answer`."""
    return answer.map(make) if isinstance(answer, Later) else _made(answer, make)


async def _made(answer: Awaitable[T], make: Callable[[T], R]) -> R:
    return make(await answer)
